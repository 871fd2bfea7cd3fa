//! Mutants: deliberate bugs, each of which the checker must catch. They live at the simulator's seams where
//! a seam reaches, else at a hook inside jitney (feature `mutants`).

use jitney::driver::port::{Answer, Inbound, SettleBody};

/// A deliberate bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Between the driver and its callers.
    Port(PortMutant),
    /// Between the driver and its bus.
    Bus(BusMutant),
    /// Between the log and the disk.
    Disk(DiskMutant),
    /// Inside jitney.
    #[cfg(feature = "mutants")]
    Code(jitney::mutants::Mutant),
    /// Inside the log.
    #[cfg(feature = "mutants")]
    Log(joblog::mutants::Mutant),
}

/// Bugs of who is told what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortMutant {
    /// Two submitters get each other's answer.
    AnswerWrongCall,
    /// A worker's poll is answered twice.
    AnswerTwice,
    /// A settle's outcomes are matched to the jobs in reverse order.
    ResultsByPosition,
    /// A batch's first two jobs carry each other's data.
    SwapData,
    /// A call is never answered.
    ForgetCall,
    /// Two of many jobs that were submitted together are answered in each other's place.
    SwapEntries,
}

/// Bugs of what is durable, visible, told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusMutant {
    /// "Durable" is said when the records are written, not synced.
    NotifyBeforeDurable,
    /// Now and then a job's outcome wakes nobody.
    ForgetOutcome,
    /// Now and then an accepted job never reaches its lane.
    ForgetArrival,
    /// After a restart tokens begin again where they began before.
    ReuseEpoch,
    /// Some idempotency keys are not found again.
    ForgetKeys,
    /// A job's way back to its lane is not written.
    DropReturns,
    /// Children are not written with their parent's outcome.
    DropChildren,
    /// Leases are not restored after a restart.
    ForgetLeases,
    /// Pauses and policies are not restored after a restart.
    ForgetSettings,
}

/// Bugs of the log's I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskMutant {
    /// No file is ever synced.
    NeverSync,
    /// A commit is called synced when it is written; the sync comes later.
    SyncLate,
    /// No directory is ever synced.
    ForgetDirectory,
}

impl Mutant {
    /// Every mutant that this build knows.
    #[must_use]
    pub fn all() -> Vec<Self> {
        use BusMutant as B;
        use DiskMutant as D;
        use PortMutant as P;
        let ports = [
            P::AnswerWrongCall,
            P::AnswerTwice,
            P::ResultsByPosition,
            P::SwapData,
            P::ForgetCall,
            P::SwapEntries,
        ];
        let buses = [
            B::NotifyBeforeDurable,
            B::ForgetOutcome,
            B::ForgetArrival,
            B::ReuseEpoch,
            B::ForgetKeys,
            B::DropReturns,
            B::DropChildren,
            B::ForgetLeases,
            B::ForgetSettings,
        ];
        let disks = [D::NeverSync, D::SyncLate, D::ForgetDirectory];
        let all = ports
            .map(Self::Port)
            .into_iter()
            .chain(buses.map(Self::Bus))
            .chain(disks.map(Self::Disk));
        #[cfg(feature = "mutants")]
        let all = all
            .chain(jitney::mutants::Mutant::ALL.map(Self::Code))
            .chain(joblog::mutants::Mutant::ALL.map(Self::Log));
        all.collect()
    }

    /// Its name in the table.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Port(mutant) => format!("port: {mutant:?}"),
            Self::Bus(mutant) => format!("bus: {mutant:?}"),
            Self::Disk(mutant) => format!("disk: {mutant:?}"),
            #[cfg(feature = "mutants")]
            Self::Code(mutant) => format!("code: {mutant:?}"),
            #[cfg(feature = "mutants")]
            Self::Log(mutant) => format!("log: {mutant:?}"),
        }
    }
}

/// The mutant in force, if any, as the seams ask for it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sabotage(pub Option<Mutant>);

impl Sabotage {
    pub(crate) fn is(self, mutant: PortMutant) -> bool {
        self.0 == Some(Mutant::Port(mutant))
    }

    pub(crate) const fn bus(self) -> Option<BusMutant> {
        match self.0 {
            Some(Mutant::Bus(mutant)) => Some(mutant),
            _ => None,
        }
    }

    pub(crate) const fn disk(self) -> Option<DiskMutant> {
        match self.0 {
            Some(Mutant::Disk(mutant)) => Some(mutant),
            _ => None,
        }
    }

    /// Tells the hooks inside jitney.
    pub(crate) fn arm(self) {
        #[cfg(feature = "mutants")]
        {
            jitney::mutants::arm(match self.0 {
                Some(Mutant::Code(mutant)) => Some(mutant),
                _ => None,
            });
            joblog::mutants::arm(match self.0 {
                Some(Mutant::Log(mutant)) => Some(mutant),
                _ => None,
            });
        }
    }

    pub(crate) fn spoil_inbound(self, inbound: &mut Inbound) {
        use jitney::driver::port::Command;
        if !self.is(PortMutant::ResultsByPosition) {
            return;
        }
        let reverse = |body: &mut SettleBody| {
            if let SettleBody::Outcomes { outcomes, .. } = body {
                let mut said: Vec<_> = outcomes.iter().map(|outcome| outcome.said.clone()).collect();
                for outcome in outcomes {
                    outcome.said = said.pop().unwrap_or_else(|| outcome.said.clone());
                }
            }
        };
        match inbound {
            Inbound::Call(_, Command::Settle(settle)) => reverse(&mut settle.body),
            Inbound::Call(_, Command::Lease(lease)) => {
                lease
                    .settle
                    .iter_mut()
                    .for_each(|settle| reverse(&mut settle.body));
            }
            _ => {}
        }
    }

    pub(crate) fn spoil_answer(self, answer: &mut Answer) {
        if self.is(PortMutant::SwapEntries)
            && let Answer::SubmittedMany(entries) = answer
            && let [first, second, ..] = &mut entries[..]
        {
            std::mem::swap(first, second);
        }
        if !self.is(PortMutant::SwapData) {
            return;
        }
        if let Answer::Leased(leased) = answer {
            for batch in &mut leased.batches {
                if let [first, second, ..] = &mut batch.jobs[..] {
                    std::mem::swap(&mut first.payload, &mut second.payload);
                }
            }
        }
    }
}
