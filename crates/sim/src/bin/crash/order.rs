//! What the jobs are: data that says how it is to be processed, and the one right result of it.

use jitney::job::JobId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Whose jobs are tried until they end well.
pub(crate) const STEADY: &str = "steady";
/// Whose jobs are given up after two failed tries or two crashes.
pub(crate) const BRITTLE: &str = "brittle";
/// Child jobs of a parent.
pub(crate) const CHILDREN: u64 = 2;
/// The label that carries a job's number, so that each answer shows whose it is.
pub(crate) const LABEL: &str = "n";

/// A child's number is its parent's and, above it, its index + 1.
const CHILD_SHIFT: u32 = 48;

/// How a worker is to process a job when nothing goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Plan {
    /// A result.
    Well,
    /// A final error.
    Fail,
    /// A result, and child jobs.
    Parent,
}

/// A job's data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) n: u64,
    pub(crate) plan: Plan,
    /// Makes jobs of many sizes.
    pub(crate) pad: String,
}

/// A job's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Executed {
    pub(crate) n: u64,
    /// The function of the data that the jobs compute: [`hash`].
    pub(crate) hash: u64,
    /// Under which lease: tells whose outcome it is that counted.
    pub(crate) lease: String,
}

impl Order {
    pub(crate) fn json(&self) -> Box<RawValue> {
        serde_json::value::to_raw_value(self).expect("numbers and strings can always be written as JSON")
    }

    /// The child jobs that a parent's outcome makes.
    pub(crate) fn children(&self) -> Vec<Self> {
        let count = if self.plan == Plan::Parent { CHILDREN } else { 0 };
        let child = |index| Self {
            n: child_of(self.n, index),
            plan: Plan::Well,
            pad: String::new(),
        };
        (0..count).map(child).collect()
    }
}

pub(crate) const fn child_of(n: u64, index: u64) -> u64 {
    n | ((index + 1) << CHILD_SHIFT)
}

/// FNV-1a: the same in every process.
pub(crate) fn hash(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A client's own id for a job.
pub(crate) fn id(bits: u128) -> JobId {
    // Version 4 and the variant of RFC 9562, as a careful client makes it.
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    JobId(bits.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_have_numbers_of_their_own() {
        let parent = Order {
            n: 7,
            plan: Plan::Parent,
            pad: String::new(),
        };
        let children = parent.children();
        assert_eq!(children.len(), 2);
        assert_eq!(children[1].n, child_of(7, 1));
        assert_ne!(children[0].n, children[1].n);
        assert_eq!(children[0].children(), []);
    }

    #[test]
    fn an_id_is_a_uuid_of_version_4() {
        assert_eq!(id(u128::MAX).to_string(), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}
