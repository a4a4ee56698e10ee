//! Several claims tested at once: p-values that account for it.

/// Holm's step-down adjustment: the chance of a single false claim among all stays below the level (Holm 1979).
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let num = p_values.len();
    let mut adjusted = vec![0.0; num];
    let mut highest = 0.0_f64;
    for (rank, index) in ascending(p_values).into_iter().enumerate() {
        highest = highest.max(p_values[index] * (num - rank) as f64).min(1.0);
        adjusted[index] = highest;
    }
    adjusted
}

/// The adjustment of Benjamini and Hochberg 1995: the expected share of false claims among those held stays below the level.
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let num = p_values.len();
    let mut adjusted = vec![0.0; num];
    let mut lowest = 1.0_f64;
    for (rank, index) in ascending(p_values).into_iter().enumerate().rev() {
        lowest = lowest.min(p_values[index] * num as f64 / (rank + 1) as f64);
        adjusted[index] = lowest;
    }
    adjusted
}

fn ascending(p_values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|a, b| p_values[*a].total_cmp(&p_values[*b]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_claim_is_not_corrected() {
        assert_eq!((holm(&[0.03]), benjamini_hochberg(&[0.03])), (vec![0.03], vec![0.03]));
        assert_eq!((holm(&[]), benjamini_hochberg(&[])), (vec![], vec![]));
    }

    #[test]
    fn order_is_kept_and_values_stay_probabilities() {
        let p_values = [0.04, 0.01, 0.5, 0.03];
        let close = |a: Vec<f64>, b: [f64; 4]| assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?}");
        close(holm(&p_values), [0.09, 0.04, 0.5, 0.09]);
        close(benjamini_hochberg(&p_values), [0.16 / 3.0, 0.04, 0.5, 0.16 / 3.0]);
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
    }
}
