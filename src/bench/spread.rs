//! Least, most, mean and standard deviation of numbers that are not kept. Pure.

/// Numbers seen so far, in constant space (Welford's sums).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    count: u64,
    min: u64,
    max: u64,
    mean: f64,
    /// Sum of the squared distances from the mean.
    squares: f64,
}

impl Spread {
    /// Takes in `value`, `count` times.
    pub fn add(&mut self, value: u64, count: u64) {
        self.append(&Self { count, min: value, max: value, mean: as_f64(value), squares: 0.0 });
    }

    /// Takes in what another one saw: the same as if this one had seen it.
    pub fn append(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        let (own, theirs) = (as_f64(self.count), as_f64(other.count));
        let apart = other.mean - self.mean;
        self.mean += apart * theirs / (own + theirs);
        self.squares += other.squares + apart * apart * own * theirs / (own + theirs);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.count += other.count;
    }

    /// Puts the rates of one that ran at the same time on top: fio's way with the bandwidths of a group. Deviations are
    /// taken as independent.
    pub fn stack(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        let variance = self.variance() + other.variance();
        self.min = self.min.saturating_add(other.min);
        self.max = self.max.saturating_add(other.max);
        self.mean += other.mean;
        self.count += other.count;
        self.squares = variance * as_f64(self.count.saturating_sub(1));
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The least; 0 of none.
    pub fn min(&self) -> u64 {
        self.min
    }

    /// The most; 0 of none.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The mean; 0 of none.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The standard deviation of a sample, as fio gives it; 0 of fewer than two.
    pub fn deviation(&self) -> f64 {
        self.variance().sqrt()
    }

    fn variance(&self) -> f64 {
        if self.count > 1 { self.squares / as_f64(self.count - 1) } else { 0.0 }
    }
}

/// For means and shares, where the last digits do not matter.
#[expect(clippy::cast_precision_loss, reason = "a mean of 2^53 and more is as good without its last digits")]
pub fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[u64]) -> Spread {
        let mut spread = Spread::default();
        for value in values {
            spread.add(*value, 1);
        }
        spread
    }

    #[test]
    fn mean_and_deviation_are_those_of_the_numbers() {
        let spread = of(&[2, 4, 4, 4, 5, 5, 7, 9]);
        assert_eq!((spread.count(), spread.min(), spread.max()), (8, 2, 9));
        assert!((spread.mean() - 5.0).abs() < 1e-9);
        assert!((spread.deviation() - (32.0_f64 / 7.0).sqrt()).abs() < 1e-9);
        assert_eq!((of(&[]).mean(), of(&[]).deviation(), of(&[3]).deviation()), (0.0, 0.0, 0.0));
    }

    #[test]
    fn parts_append_to_the_whole() {
        let mut parts = of(&[1, 2, 3]);
        parts.append(&Spread::default());
        parts.append(&of(&[10, 20]));
        let whole = of(&[1, 2, 3, 10, 20]);
        assert!((parts.mean() - whole.mean()).abs() < 1e-9 && (parts.deviation() - whole.deviation()).abs() < 1e-9);
        let mut many = Spread::default();
        many.add(7, 3);
        many.add(1, 1);
        let singly = of(&[7, 7, 7, 1]);
        assert!((many.deviation() - singly.deviation()).abs() < 1e-9);
    }

    #[test]
    fn rates_of_a_group_stack() {
        let mut rates = Spread::default();
        rates.stack(&of(&[100, 110]));
        rates.stack(&of(&[200, 210]));
        assert_eq!((rates.count(), rates.min(), rates.max()), (4, 300, 320));
        assert!((rates.mean() - 310.0).abs() < 1e-9);
        assert!((rates.deviation() - 10.0).abs() < 1e-9, "{}", rates.deviation());
    }
}
