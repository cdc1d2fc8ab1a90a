//! Small sets of numbers, as the checker remembers them by the thousand.

/// A set of small numbers; equal sets are equal values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Bits {
    /// The last word is never zero.
    words: Vec<u64>,
}

impl Bits {
    pub(crate) fn contains(&self, number: usize) -> bool {
        self.words.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    pub(crate) fn insert(&mut self, number: usize) {
        if self.words.len() <= number / 64 {
            self.words.resize(number / 64 + 1, 0);
        }
        if let Some(word) = self.words.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    pub(crate) fn remove(&mut self, number: usize) {
        if let Some(word) = self.words.get_mut(number / 64) {
            *word &= !(1 << (number % 64));
        }
        while self.words.last() == Some(&0) {
            self.words.pop();
        }
    }

    /// How many numbers are in it.
    pub(crate) fn count(&self) -> usize {
        let ones = self.words.iter().map(|word| word.count_ones());
        ones.map(|ones| usize::try_from(ones).unwrap_or_default()).sum()
    }

    pub(crate) fn is_subset(&self, of: &Self) -> bool {
        self.words.len() <= of.words.len()
            && self.words.iter().zip(&of.words).all(|(own, other)| own & !other == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_forgets_how_it_came_about() {
        let mut set = Bits::default();
        set.insert(3);
        let small = set.clone();
        set.insert(200);
        assert!(set.contains(200) && set.contains(3) && !set.contains(4) && !set.contains(999));
        assert!(small.is_subset(&set) && !set.is_subset(&small));
        set.remove(200);
        assert_eq!(set, small);
    }
}
