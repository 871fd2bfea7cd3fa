//! Which copies of a cold segment are closed, and where a closing frame is lost.
//!
//! In: what stands at each LSN of a segment. Out: the same, with a closing frame in the place of a lost one where a copy
//! must have been closed: its source is gone, and something behind it shows that it was over.

use std::collections::BTreeSet;

use super::origin::Lead;
use crate::record::Copied;

/// What stands at an LSN, or at several.
pub(super) enum Entry {
    /// A valid frame that stays byte for byte.
    Keep {
        offset: u64,
        bytes: u64,
        says: Says,
    },
    /// Saved copies; without their *copied* record.
    Group {
        lsn: u64,
        copied: Option<Copied>,
        records: Vec<u8>,
        lead: Lead,
    },
    Close {
        lsn: u64,
        source: u64,
    },
    Blank {
        first_lsn: u64,
        count: u64,
    },
    End {
        lsn: u64,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    Group(Copied),
    Close(u64),
    Mark,
    End,
}

/// Closes what must have been closed; says which copy is open at the end.
pub(super) fn close(entries: Vec<Entry>, there: &BTreeSet<u64>) -> (Vec<Entry>, Option<u64>) {
    let mut closer = Closer {
        there,
        out: Vec::new(),
        open: None,
        spot: None,
        origins: entries.iter().filter_map(Entry::origin).collect(),
    };
    let sources = next_sources(&entries);
    for (entry, next) in entries.into_iter().zip(sources) {
        closer.take(entry, next);
    }
    (closer.out, closer.open)
}

/// For each entry the source of the copy that goes on behind it, if it does.
fn next_sources(entries: &[Entry]) -> Vec<Option<u64>> {
    let mut next = None;
    let mut sources: Vec<_> = entries
        .iter()
        .rev()
        .map(|entry| {
            let behind = next;
            next = match entry {
                Entry::Keep {
                    says: Says::Group(copied),
                    ..
                } => Some(copied.source),
                Entry::Keep {
                    says: Says::Close(source),
                    ..
                }
                | Entry::Close { source, .. } => Some(*source),
                Entry::Group {
                    copied: Some(copied), ..
                } => Some(copied.source),
                Entry::Group { copied: None, .. } => next,
                Entry::Keep { .. } | Entry::Blank { .. } | Entry::End { .. } => None,
            };
            behind
        })
        .collect();
    sources.reverse();
    sources
}

/// Goes over the entries, and knows which copy is open.
struct Closer<'a> {
    there: &'a BTreeSet<u64>,
    out: Vec<Entry>,
    open: Option<u64>,
    /// Which of `out` is the blank that can become the closing frame of the open copy.
    spot: Option<usize>,
    /// Where other frames of the segment belong.
    origins: BTreeSet<u64>,
}

impl Entry {
    fn origin(&self) -> Option<u64> {
        match self {
            Self::Keep {
                says: Says::Group(copied),
                ..
            }
            | Self::Group {
                copied: Some(copied), ..
            } => Some(copied.origin),
            _ => None,
        }
    }
}

impl Closer<'_> {
    fn take(&mut self, mut entry: Entry, next: Option<u64>) {
        if let Entry::Group { copied, lead, .. } = &mut entry
            && copied.is_none()
        {
            *copied = lead.find(next, self.open, &self.origins);
        }
        match &entry {
            Entry::Keep {
                says: Says::Group(Copied { source, .. }),
                ..
            }
            | Entry::Group {
                copied: Some(Copied { source, .. }),
                ..
            } => self.goes_on(*source),
            Entry::Group {
                copied: None, lead, ..
            } => self.goes_on(lead.placeholder().source),
            Entry::Keep {
                says: Says::Close(source),
                ..
            }
            | Entry::Close { source, .. } => {
                self.goes_on(*source);
                self.open = None;
            }
            Entry::Keep {
                says: Says::Mark | Says::End,
                ..
            }
            | Entry::End { .. } => self.close(),
            Entry::Blank { .. } => {
                self.spot = self.spot.or(self.open.map(|_| self.out.len()));
            }
        }
        self.out.push(entry);
    }

    /// A frame of the copy of `source` comes.
    fn goes_on(&mut self, source: u64) {
        if self.open != Some(source) {
            self.close();
        }
        (self.open, self.spot) = (Some(source), None);
    }

    fn close(&mut self) {
        let (Some(source), Some(spot)) = (self.open, self.spot) else {
            return;
        };
        let Entry::Blank { first_lsn, count } = self.out[spot] else {
            return;
        };
        if self.there.contains(&source) {
            return;
        }
        self.out[spot] = Entry::Close {
            lsn: first_lsn,
            source,
        };
        if count > 1 {
            let rest = Entry::Blank {
                first_lsn: first_lsn + 1,
                count: count - 1,
            };
            self.out.insert(spot + 1, rest);
        }
        (self.open, self.spot) = (None, None);
    }
}
