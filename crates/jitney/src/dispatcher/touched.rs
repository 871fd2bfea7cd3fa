//! The processors that a step has to look at before it ends: nearly always none or one.

/// Numbers of processors, each once.
#[derive(Debug, Default)]
pub(super) struct Touched(Vec<usize>);

impl Touched {
    pub(super) fn insert(&mut self, processor: usize) {
        if !self.0.contains(&processor) {
            self.0.push(processor);
        }
    }

    pub(super) fn extend(&mut self, processors: impl IntoIterator<Item = usize>) {
        for processor in processors {
            self.insert(processor);
        }
    }

    pub(super) fn remove(&mut self, processor: usize) {
        self.0.retain(|&other| other != processor);
    }

    /// Takes out the lowest.
    pub(super) fn pop_first(&mut self) -> Option<usize> {
        let at = (0..self.0.len()).min_by_key(|&at| self.0[at])?;
        Some(self.0.swap_remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_out_once_in_order() {
        let mut touched = Touched::default();
        touched.extend([5, 2, 9, 2, 7]);
        touched.remove(7);
        touched.insert(5);
        let out: Vec<_> = std::iter::from_fn(|| touched.pop_first()).collect();
        assert_eq!(out, [2, 5, 9]);
    }
}
