//! Area under the ROC curve.

/// Probability that a positive scores higher than a negative, ties counted half (Mann–Whitney U); `None` without both
/// classes or with a score that is NaN.
///
/// # Panics
/// Where `scores` and `labels` differ in length.
pub fn auc(scores: &[f64], labels: &[bool]) -> Option<f64> {
    assert_eq!(scores.len(), labels.len(), "each score needs its label");
    if scores.iter().any(|score| score.is_nan()) {
        return None;
    }
    let mut ranked: Vec<(f64, bool)> = scores.iter().copied().zip(labels.iter().copied()).collect();
    ranked.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));

    let (mut negatives_below, mut wins, mut positives) = (0.0, 0.0, 0.0);
    for tied in ranked.chunk_by(|a, b| a.0 == b.0) {
        let tied_positives = tied.iter().filter(|(_, positive)| *positive).count() as f64;
        let tied_negatives = tied.len() as f64 - tied_positives;
        wins += tied_positives * (negatives_below + 0.5 * tied_negatives);
        negatives_below += tied_negatives;
        positives += tied_positives;
    }
    let pairs = positives * negatives_below;
    (pairs > 0.0).then(|| wins / pairs)
}
