//! Reads a whole directory without changing it, and says what is damaged.

use crate::record::Record;
use crate::recovery::{Damage, OpenError, Visitor, survey, walk};
use crate::storage::Storage;

/// What a look at everything found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Every damage, in the order of the log. A log without any opens.
    pub damages: Vec<Damage>,
    /// A torn tail, which the next start cuts. Nothing shows that any of it was acknowledged.
    pub torn: Option<Torn>,
    /// Segments that were read.
    pub segments: u64,
    /// Valid frames.
    pub frames: u64,
    /// Valid records.
    pub records: u64,
    /// Submits among them.
    pub jobs: u64,
    /// Outcomes among them.
    pub outcomes: u64,
    /// Whether the last stop was clean.
    pub clean: bool,
}

/// Frames that were being written when the power went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The file.
    pub file: String,
    /// Where the first of them starts.
    pub offset: u64,
    /// How far they reach.
    pub bytes: u64,
}

/// Looks at every frame and record of a directory.
///
/// # Errors
/// [`OpenError`] if the medium fails or the directory is of a newer format. Damage is no error here.
pub fn verify<S: Storage>(storage: &S) -> Result<Verdict, OpenError> {
    let survey = survey(storage)?;
    let mut verdict = Verdict {
        damages: survey.damages.clone(),
        ..Verdict::default()
    };
    verdict.segments = u64::try_from(survey.chain.len() + survey.cold.len()).unwrap_or(u64::MAX);
    let (ending, _) = walk(&survey, &mut verdict)?;
    verdict.clean = ending.clean;
    if let Some(last) = survey.chain.last()
        && ending.torn_to > ending.offset
    {
        let bytes = ending.torn_to - ending.offset;
        verdict.torn = Some(Torn {
            file: last.name.clone(),
            offset: ending.offset,
            bytes,
        });
    }
    Ok(verdict)
}

impl Visitor for Verdict {
    fn segment(&mut self, _: u32) {}

    fn frame(&mut self) {
        self.frames += 1;
    }

    fn record(&mut self, record: &Record<'_>, _: u64, _: usize) {
        self.records += 1;
        self.jobs += u64::from(matches!(record, Record::Submit(_)));
        self.outcomes += u64::from(matches!(record, Record::Outcome(_)));
    }

    fn damage(&mut self, damage: Damage) -> Result<(), OpenError> {
        self.damages.push(damage);
        Ok(())
    }
}
