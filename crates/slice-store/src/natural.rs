//! Natural order of names: `volume-2` comes before `volume-10`.

use std::cmp::Ordering;

/// Compares two names with runs of ASCII digits taken as numbers; names that differ only in leading zeros are ordered as
/// plain strings, so that the order is total and agrees with equality.
pub fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a.as_bytes(), b.as_bytes());
    while let (Some(&first_a), Some(&first_b)) = (rest_a.first(), rest_b.first()) {
        let order = if first_a.is_ascii_digit() && first_b.is_ascii_digit() {
            let (number_a, number_b) = (take_number(&mut rest_a), take_number(&mut rest_b));
            number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b))
        } else {
            rest_a = &rest_a[1..];
            rest_b = &rest_b[1..];
            first_a.cmp(&first_b)
        };
        if order.is_ne() {
            return order;
        }
    }
    rest_a.len().cmp(&rest_b.len()).then_with(|| a.cmp(b))
}

/// Cuts a run of digits off and gives it without leading zeros.
fn take_number<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|c| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, tail) = rest.split_at(end);
    *rest = tail;
    &digits[digits.iter().position(|&c| c != b'0').unwrap_or(digits.len())..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn digits_are_compared_as_numbers() {
        let mut names = ["10", "9", "volume-10", "volume-2", "s0011", "s1", "a", "volume-2b", "02", "2", ""];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["", "02", "2", "9", "10", "a", "s1", "s0011", "volume-2", "volume-2b", "volume-10"]);
    }

    proptest! {
        #[test]
        fn the_order_is_total(a in "[a0-2]{0,5}", b in "[a0-2]{0,5}", c in "[a0-2]{0,5}") {
            prop_assert_eq!(natural_order(&a, &b), natural_order(&b, &a).reverse());
            prop_assert_eq!(natural_order(&a, &b).is_eq(), a == b);
            if natural_order(&a, &b).is_lt() && natural_order(&b, &c).is_lt() {
                prop_assert!(natural_order(&a, &c).is_lt());
            }
        }
    }
}
