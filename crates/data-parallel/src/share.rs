//! Which things of a batch are whose.

/// One of several shares of a batch: each N-th thing, so that the shares together are the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub(crate) rank: usize,
    pub(crate) count: usize,
}

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { rank: 0, count: 1 };

    /// Whether it is all.
    pub fn is_whole(self) -> bool {
        self.count == 1
    }

    /// The things of this share, in their order.
    pub fn of<T: Clone>(self, all: &[T]) -> Vec<T> {
        all.iter().skip(self.rank).step_by(self.count).cloned().collect()
    }

    /// The place in the whole of the share's thing at `place`.
    pub fn place(self, place: usize) -> usize {
        self.rank + place * self.count
    }

    /// Whether what is at that place of the whole is of this share.
    pub fn has(self, place: usize) -> bool {
        place % self.count == self.rank
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_together_are_the_whole_and_know_their_places() {
        let all: Vec<usize> = (0..7).collect();
        for count in 1..=9 {
            let mut seen = [0; 7];
            for share in (0..count).map(|rank| Share { rank, count }) {
                for (i, thing) in share.of(&all).into_iter().enumerate() {
                    assert!(share.place(i) == thing && share.has(thing));
                    seen[thing] += 1;
                }
            }
            assert_eq!(seen, [1; 7], "{count} shares");
        }
    }
}
