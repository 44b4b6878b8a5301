//! Correction of p-values for the number of tests.

use crate::Error;

/// Holm's adjusted p-values (Holm 1979), in the order given: of m values, the k-th smallest becomes the largest of
/// (m − j + 1)·p₍ⱼ₎ over j ≤ k, and at most 1. Calling those of at most α significant keeps the chance of any false call
/// in the family within α, whatever the tests have in common. None gives none. Errors: a value outside [0, 1].
pub fn holm(p_values: &[f64]) -> Result<Vec<f64>, Error> {
    if let Some((index, &found)) = p_values.iter().enumerate().find(|(_, p)| !(0.0..=1.0).contains(*p)) {
        return Err(Error::PValue { index, found });
    }
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut largest = 0.0_f64;
    for (rank, &index) in order.iter().enumerate() {
        let remaining = (p_values.len() - rank) as f64;
        largest = largest.max(remaining * p_values[index]).min(1.0);
        adjusted[index] = largest;
    }
    Ok(adjusted)
}
