//! Cases side by side, each on a thread of its own.
//!
//! Invariant: a worker has one case at a time, so that memory is bounded by workers times one case. Threads of rayon would begin
//! another case while they wait for a part of the one that they hold, and so on without a bound; rayon is for the parts of a case
//! (the slices of a DICOM series), which hold nothing while they wait.

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Does the work of all items, in their order, at most `workers` of them at a time; gives the results in the same order.
pub(crate) fn each<T: Send, R: Send>(workers: usize, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = workers.min(items.len());
    let queue = Mutex::new(items.into_iter().enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let until_done = || {
        let mut results = Vec::new();
        while let Some((index, item)) = next() {
            results.push((index, work(item)));
        }
        results
    };
    let mut results = thread::scope(|scope| {
        // The caller is a worker too, and a system that has no more threads goes without.
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, until_done).ok();
        let others: Vec<_> = (1..threads).map_while(spawn).collect();
        let mut results = until_done();
        for other in others {
            results.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        results
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[test]
    fn no_worker_begins_another_case_while_parts_of_its_own_are_under_way() {
        // With rayon's threads in the workers' place, 8 of them were seen to hold 9 to 13 cases.
        for workers in [1, 3, 8, 8, 8] {
            let (held, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let case = |number: usize| {
                most.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                (0..20_usize).into_par_iter().with_max_len(1).for_each(|part| {
                    let slow = if part % 10 == 9 { 2000 } else { 50 * (number % 3) as u64 };
                    thread::sleep(Duration::from_micros(slow));
                });
                held.fetch_sub(1, Ordering::SeqCst);
                number
            };
            assert_eq!(each(workers, (0..60).collect(), case), (0..60).collect::<Vec<_>>());
            assert!(most.into_inner() <= workers, "{workers} workers");
        }
    }

    #[test]
    fn nothing_to_do_is_done() {
        assert!(each(4, Vec::<u8>::new(), |item| item).is_empty());
    }

    #[test]
    #[should_panic(expected = "case 3")]
    fn a_panic_of_a_worker_is_the_callers() {
        each(2, (0..5).collect(), |case| assert!(case != 3, "case {case}"));
    }
}
