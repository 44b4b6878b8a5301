//! Which steps take about the same time: those of a phase with the same parts; and each phase's validation.

use crate::plan::Step;
use std::collections::BTreeMap;

/// Kinds of work, numbered from 0.
pub(super) struct Kinds {
    numbers: BTreeMap<Kind, usize>,
}

/// Phase, and what is done.
type Kind = (usize, Work);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    Step { slices: bool, labelled: bool },
    Validation,
}

impl Kinds {
    /// Of a plan.
    pub fn of(steps: &[Step]) -> Self {
        let mut numbers = BTreeMap::new();
        for kind in steps.iter().flat_map(work) {
            let next = numbers.len();
            numbers.entry(kind).or_insert(next);
        }
        Self { numbers }
    }

    /// Of a step.
    pub fn step(&self, step: &Step) -> usize {
        self.numbers[&kind_of(step)]
    }

    /// Of the validation at the end of its epoch.
    pub fn validation(&self, step: &Step) -> usize {
        self.numbers[&(step.phase, Work::Validation)]
    }

    /// Of a step, and of the validation after it if there is one.
    pub fn all(&self, step: &Step) -> impl Iterator<Item = usize> {
        work(step).map(|kind| self.numbers[&kind])
    }

    /// How many of each kind there are in these steps of the plan.
    pub fn count(&self, steps: &[Step]) -> Vec<usize> {
        let mut counts = vec![0; self.numbers.len()];
        steps.iter().flat_map(|step| self.all(step)).for_each(|kind| counts[kind] += 1);
        counts
    }
}

fn kind_of(step: &Step) -> Kind {
    (step.phase, Work::Step { slices: !step.slices.is_empty(), labelled: !step.labelled.is_empty() })
}

fn work(step: &Step) -> impl Iterator<Item = Kind> + use<> {
    std::iter::once(kind_of(step)).chain(step.ends_epoch.then_some((step.phase, Work::Validation)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::plan::plan;

    #[test]
    fn steps_of_a_phase_with_the_same_parts_are_of_one_kind() {
        let text = "[sampling]\nlabelled = 2\n[classifier]\nbatch_slices = 4\n\
            [[phase]]\nname = \"a\"\nepochs = 3\nlabelled_passes = 0\n[[phase]]\nname = \"b\"\nepochs = 1\n";
        let rows: Vec<usize> = (0..24).collect();
        let steps = plan(&Config::parse(text, &[]).unwrap(), &rows, &rows[..2], &[], &[]);
        // Six steps of four slices in an epoch; in the second phase two of them have a labelled slice.
        let kinds = Kinds::of(&steps);
        let mut counts = kinds.count(&steps);
        counts.sort_unstable();
        assert_eq!(counts, [1, 2, 3, 4, 18]);
        assert_eq!(kinds.step(&steps[0]), kinds.step(&steps[17]));
        assert_ne!(kinds.validation(&steps[5]), kinds.validation(&steps[23]));
    }
}
