//! Which files there are, and which of them make up the log.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Damage, OpenError};
use crate::frame::{Kind, Reader};
use crate::segment::{self, FRAMES_AT, Header, Name, State, Stream};
use crate::storage::{File, Storage};

/// A begun segment.
pub(crate) struct Found<F> {
    pub(crate) name: String,
    pub(crate) file: Arc<F>,
    pub(crate) header: Header,
}

impl<F: File> Found<F> {
    /// Why the file cannot be all that it was when the segment was begun, if it cannot. No power cut does that: the
    /// length was synced with the header, and nothing makes a file shorter.
    pub(crate) fn shortened(&self) -> Result<Option<String>, OpenError> {
        let bytes = self.file.len();
        let bytes = bytes.map_err(|error| OpenError::io(&self.name, error))?;
        Ok(self.header.shortened(bytes))
    }
}

/// A file whose content means nothing.
pub(crate) struct Leftover<F> {
    pub(crate) name: String,
    pub(crate) file: Arc<F>,
}

pub(crate) struct Survey<F> {
    /// The hot segments, in order.
    pub(crate) chain: Vec<Found<F>>,
    /// The cold segments, in order.
    pub(crate) cold: Vec<Found<F>>,
    /// Replaced segments, incomplete copies, segments that were never begun: free to be used again.
    pub(crate) leftovers: Vec<Leftover<F>>,
    pub(crate) spares: Vec<Leftover<F>>,
    /// Spares that were being made.
    pub(crate) filling: Vec<String>,
    /// What earlier starts cut: segment, offset, name.
    pub(crate) cuts: Vec<(u64, u64, String)>,
    /// The highest number in any segment's name.
    pub(crate) last_number: u64,
    /// The highest number in any spare's name.
    pub(crate) last_spare: u64,
    /// The highest boot epoch in any header.
    pub(crate) last_boot: u32,
    pub(crate) node: Option<u64>,
    /// Headers that are no headers.
    pub(crate) damages: Vec<Damage>,
}

/// Looks at every file; changes nothing.
pub(crate) fn survey<S: Storage>(storage: &S) -> Result<Survey<S::File>, OpenError> {
    survey_as(storage, |_, state| Some(state))
}

/// Looks at every file as if `read` had said what it is, of its number and of what it says itself. A segment of
/// which `read` says `None` is passed over.
pub(crate) fn survey_as<S: Storage>(
    storage: &S,
    read: impl Fn(u64, State) -> Option<State>,
) -> Result<Survey<S::File>, OpenError> {
    let mut names = storage
        .list()
        .map_err(|error| OpenError::io("the directory", error))?;
    names.sort_unstable();
    let mut survey = Survey {
        chain: Vec::new(),
        cold: Vec::new(),
        leftovers: Vec::new(),
        spares: Vec::new(),
        filling: Vec::new(),
        cuts: Vec::new(),
        last_number: 0,
        last_spare: 0,
        last_boot: 0,
        node: None,
        damages: Vec::new(),
    };
    for name in names {
        match segment::parse_name(&name) {
            Name::Segment(number) => {
                survey.last_number = survey.last_number.max(number);
                let file = open(storage, &name)?;
                let state = segment::examine(&*file, number).map_err(|error| OpenError::io(&name, error))?;
                let Some(state) = read(number, state) else {
                    continue;
                };
                match state {
                    State::Begun(header) => survey.begun(Found { name, file, header }),
                    // Had it held frames, the first LSN of its successor would not join: see `walk`.
                    State::NotBegun => survey.leftovers.push(Leftover { name, file }),
                    State::Newer(version) => {
                        return Err(OpenError::Newer {
                            file: name,
                            what: format!("version {version}"),
                        });
                    }
                    State::Damaged(what) => survey.damages.push(Damage {
                        file: name,
                        offset: 0,
                        what: what.to_owned(),
                    }),
                }
            }
            Name::Spare(number) => {
                survey.last_spare = survey.last_spare.max(number);
                let file = open(storage, &name)?;
                survey.spares.push(Leftover { name, file });
            }
            Name::Filling(number) => {
                survey.last_spare = survey.last_spare.max(number);
                survey.filling.push(name);
            }
            Name::Cut(segment, offset) => survey.cuts.push((segment, offset, name)),
            Name::Other => {}
        }
    }
    survey.drop_incomplete_copies()?;
    survey.drop_replaced();
    Ok(survey)
}

fn open<S: Storage>(storage: &S, name: &str) -> Result<Arc<S::File>, OpenError> {
    storage
        .open(name)
        .map(Arc::new)
        .map_err(|error| OpenError::io(name, error))
}

impl<F: File> Survey<F> {
    fn begun(&mut self, found: Found<F>) {
        self.last_boot = self.last_boot.max(found.header.boot);
        if *self.node.get_or_insert(found.header.node) != found.header.node {
            let what = "it belongs to another directory".to_owned();
            self.damages.push(Damage {
                file: found.name,
                offset: 48,
                what,
            });
            return;
        }
        match found.header.stream {
            Stream::Hot => self.chain.push(found),
            Stream::Cold => self.cold.push(found),
        }
    }

    /// The numbers of all begun segments.
    pub(crate) fn numbers(&self) -> BTreeSet<u64> {
        let all = self.chain.iter().chain(&self.cold);
        all.map(|found| found.header.number).collect()
    }

    /// A last segment that replaces one that is still there counts only if its copy is complete.
    fn drop_incomplete_copies(&mut self) -> Result<(), OpenError> {
        while let Some(last) = self.chain.last() {
            let replaces = last.header.replaces;
            let original = self.chain.iter().any(|found| found.header.number == replaces);
            if !original || copy_is_complete(last)? {
                break;
            }
            self.drop_last();
        }
        Ok(())
    }

    fn drop_last(&mut self) {
        if let Some(Found { name, file, .. }) = self.chain.pop() {
            self.leftovers.push(Leftover { name, file });
        }
    }

    /// What a later segment replaces is not read; nor is an earlier, incomplete copy of the same.
    fn drop_replaced(&mut self) {
        let mut gone = BTreeSet::new();
        let mut kept = Vec::new();
        while let Some(found) = self.chain.pop() {
            let Header { number, replaces, .. } = found.header;
            let superseded = gone.contains(&number) || (replaces != 0 && gone.contains(&replaces));
            if replaces != 0 {
                gone.insert(replaces);
            }
            if superseded {
                self.leftovers.push(Leftover {
                    name: found.name,
                    file: found.file,
                });
            } else {
                kept.push(found);
            }
        }
        kept.reverse();
        self.chain = kept;
    }
}

/// Copied frames have a durable LSN of 0; the copy frame and all that is written later have another.
fn copy_is_complete<F: File>(found: &Found<F>) -> Result<bool, OpenError> {
    let failed = |error| OpenError::io(&found.name, error);
    let mut reader = Reader::new(&*found.file).map_err(failed)?;
    let wanted = |head: &crate::frame::Head| head.kind == Kind::Copy || head.durable_lsn != 0;
    let frame = reader
        .find_frame(FRAMES_AT, found.header.epoch, wanted)
        .map_err(failed)?;
    Ok(frame.is_some())
}
