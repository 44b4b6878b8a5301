//! The plan of a run's steps.

use trainer::config::Config;
use trainer::plan::{SliceCopy, Step, copies, plan};

fn config(passes: usize) -> Config {
    let text = format!(
        "[sampling]\nlabelled = 5\n[classifier]\nbatch_slices = 4\n[[phase]]\nname = \"a\"\nepochs = 2\nlabelled_passes = {passes}\n"
    );
    Config::parse(&text, &[]).unwrap()
}

#[test]
fn every_epoch_sees_each_slice_once_and_each_labelled_slice_as_often_as_asked() {
    let (train, labelled): (Vec<usize>, Vec<usize>) = ((0..30).collect(), vec![3, 8, 9, 20, 29]);
    for passes in [0, 1, 7] {
        let steps = plan(&config(passes), &train, &labelled, &[], &[]);
        for epoch in 0..2 {
            let mut seen = [0; 30];
            let mut guided = [0; 30];
            for step in steps.iter().filter(|s| s.epoch == epoch) {
                step.slices.iter().for_each(|&r| seen[r] += 1);
                step.labelled.iter().for_each(|v| guided[v.row] += 1);
            }
            assert_eq!(seen, [1; 30]);
            assert!((0..30).all(|r| guided[r] == if labelled.contains(&r) { passes } else { 0 }));
        }
        assert_eq!(steps.iter().filter(|s| s.ends_epoch).count(), 2);
        assert!(steps.iter().enumerate().all(|(i, s)| s.index == i && s.labelled.len() <= 1 + passes / 7));
    }
}

#[test]
fn an_update_takes_as_many_steps_as_asked_or_are_left_in_the_epoch() {
    let rows: Vec<usize> = (0..28).collect();
    let mut config = config(1);
    config.optimizer.accumulate_steps = 3;
    // Seven batches of four in each of two epochs: updates of 3, 3 and 1 steps.
    let steps = plan(&config, &rows, &rows[..5], &[], &[]);
    let found: Vec<(usize, bool)> = steps.iter().map(|s| (s.accumulates, s.updates)).collect();
    let epoch = [(3, false), (3, false), (3, true), (3, false), (3, false), (3, true), (1, true)];
    assert_eq!(found, [epoch, epoch].concat());
}

#[test]
fn views_are_shared_evenly_and_so_many_steps_see_them_equally_often() {
    let found: Vec<(usize, usize)> = copies(&[4, 9], 3).iter().map(|c| (c.row, c.copy)).collect();
    assert_eq!(found, [(4, 0), (4, 1), (4, 2), (9, 0), (9, 1)]);
    let mut config = config(1);
    config.augmented_copies.count = 3;
    let phase = &mut config.phases[0];
    (phase.labelled_steps, phase.batch_labelled, phase.train_classifier) = (5, 2, false);
    let steps: Vec<Step> =
        plan(&config, &[4, 9], &[4, 9], &[], &[]).into_iter().filter(|s| s.phase == 0 && s.epoch == 0).collect();
    assert!(steps.len() == 5 && steps.iter().all(|s| s.labelled.len() == 2));
    let mut seen: Vec<SliceCopy> = steps.iter().flat_map(|s| s.labelled.clone()).collect();
    seen.sort();
    seen.dedup_by(|a, b| a == b);
    assert_eq!(seen, copies(&[4, 9], 3));
}

#[test]
fn the_seed_decides_the_plan() {
    let rows: Vec<usize> = (0..20).collect();
    let a = plan(&config(1), &rows, &rows[..5], &[], &[]);
    assert_eq!(a, plan(&config(1), &rows, &rows[..5], &[], &[]));
    let mut other = config(1);
    other.seed = 1;
    assert_ne!(a, plan(&other, &rows, &rows[..5], &[], &[]));
}

#[test]
fn each_bag_comes_once_an_epoch_with_slices_from_all_of_it() {
    let bags = [(100..140).collect::<Vec<usize>>(), vec![200, 201]];
    let rows: Vec<usize> = (0..28).collect();
    let steps = plan(&config(1), &rows, &rows[..5], &bags, &[]);
    for epoch in 0..2 {
        let mut seen: Vec<Vec<usize>> =
            steps.iter().filter(|step| step.epoch == epoch).flat_map(|step| step.bags.clone()).collect();
        seen.sort();
        assert_eq!(seen.len(), 2);
        // Four slices, ten apart; a smaller bag whole.
        assert!(seen[0].windows(2).all(|pair| pair[1] - pair[0] == 10) && seen[0].len() == 4, "{seen:?}");
        assert!((100..110).contains(&seen[0][0]));
        assert_eq!(seen[1], [200, 201]);
    }
    let mut alone = config(1);
    alone.phases[0].train_classifier = false;
    assert!(plan(&alone, &rows, &rows[..5], &bags, &[]).iter().all(|step| step.bags.is_empty()));
}

#[test]
fn slices_without_the_target_join_the_labelled_ones_and_move_nothing_else() {
    let rows: Vec<usize> = (0..30).collect();
    let before = plan(&config(1), &rows, &rows[..5], &[], &[20, 21]);
    let mut with = config(1);
    with.phases[0].batch_absent = 2;
    let steps = plan(&with, &rows, &rows[..5], &[], &[20, 21]);
    for (step, before) in steps.iter().zip(&before) {
        let (own, absent) = step.labelled.split_at(before.labelled.len());
        assert_eq!(own, before.labelled);
        assert_eq!(absent.len(), if own.is_empty() { 0 } else { 2 });
        assert!(absent.iter().all(|copy| [20, 21].contains(&copy.row) && copy.copy == 0));
        assert_eq!((&step.slices, &step.masks), (&before.slices, &before.masks));
    }
    let drawn = |row: usize| steps.iter().flat_map(|step| &step.labelled).filter(|copy| copy.row == row).count();
    assert!(drawn(20) > 0 && drawn(21) > 0 && drawn(20) + drawn(21) == 20);
}
