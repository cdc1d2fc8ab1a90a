//! The n-th largest of a few values: how far at least n replicas are.

/// The `n`-th largest value, counted from 1; `None` for the zeroth, or if there are fewer.
///
/// Groups are small, so that comparing all of them costs less than to sort a list of them; and most
/// values are no larger than one that was found before, or are reached by the first ones.
#[must_use]
pub fn nth_largest<T: Ord + Copy>(values: impl Iterator<Item = T> + Clone, n: u32) -> Option<T> {
    let before_last = usize::try_from(n.checked_sub(1)?).ok()?;
    let is_reached =
        |value| values.clone().filter(|other| *other >= value).nth(before_last).is_some();
    values.clone().fold(None, |found, value| match found {
        Some(found) if found >= value => Some(found),
        _ if is_reached(value) => Some(value),
        _ => found,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_a_sorted_list_has_there() {
        // All lists of up to five values from 0 to 3.
        for length in 0..=5_u32 {
            for number in 0..4_u32.pow(length) {
                let values: Vec<_> = (0..length).map(|at| number / 4_u32.pow(at) % 4).collect();
                let mut sorted = values.clone();
                sorted.sort_unstable_by(|one, other| other.cmp(one));
                for n in 1..=length + 1 {
                    let there = sorted.get(usize::try_from(n - 1).unwrap()).copied();
                    assert_eq!(nth_largest(values.iter().copied(), n), there, "{values:?}");
                }
            }
        }
    }

    #[test]
    fn equal_values_count_each() {
        let nth = |n| nth_largest([3, 1, 3, 2].into_iter(), n);
        assert_eq!([0, 1, 2, 3, 4, 5].map(nth), [None, Some(3), Some(3), Some(2), Some(1), None]);
    }
}
