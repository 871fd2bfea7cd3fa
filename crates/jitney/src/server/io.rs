//! The threads that do the log's I/O: one writes and syncs commits, one does chores.
//!
//! In: commits and chores, at most one of each under way. Out: what is done, and a nudge to the driver.
//! Both threads end when the executor is dropped, which waits for them.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Builder, JoinHandle};

use joblog::log::{Chore, Commit};
use joblog::storage::Storage;

use super::handle::Handle;
use crate::bus::log::{Done, Executor};

/// Does the I/O of a [`joblog::log::Log`] on its own threads.
#[derive(Debug)]
pub struct IoThreads<S: Storage> {
    commits: Option<SyncSender<Commit<S>>>,
    chores: Option<SyncSender<Chore<S>>>,
    done: Receiver<Done>,
    threads: Vec<JoinHandle<()>>,
}

impl<S: Storage> IoThreads<S> {
    /// Starts the threads. `handle` wakes the driver when something is done.
    ///
    /// # Errors
    /// If the system has no more threads.
    #[expect(
        clippy::disallowed_methods,
        reason = "one commit and one chore at most are under way, so no more than three reports wait"
    )]
    pub fn start(handle: &Handle) -> io::Result<Self> {
        let (done_sender, done) = channel();
        let (commits, commit_receiver) = sync_channel::<Commit<S>>(1);
        let (chores, chore_receiver) = sync_channel::<Chore<S>>(1);
        let report = Report {
            done: done_sender,
            handle: handle.clone(),
        };
        let chore_report = report.clone();
        let (commit_watch, chore_watch) = (handle.watch_panic(), handle.watch_panic());
        let commit_thread = Builder::new().name("jitney-commit".to_owned()).spawn(move || {
            let _watch = commit_watch;
            commit_receiver
                .iter()
                .for_each(|commit| run_commit(&commit, &report))
        })?;
        let chore_thread = Builder::new().name("jitney-chore".to_owned()).spawn(move || {
            let _watch = chore_watch;
            chore_receiver
                .iter()
                .for_each(|chore| chore_report.send(Done::Chore(chore.run())))
        })?;
        let threads = vec![commit_thread, chore_thread];
        Ok(Self {
            commits: Some(commits),
            chores: Some(chores),
            done,
            threads,
        })
    }
}

impl<S: Storage> Executor<S> for IoThreads<S> {
    fn start_commit(&mut self, commit: Commit<S>) {
        if let Some(commits) = &self.commits {
            // The thread ends only after this sender is gone.
            drop(commits.send(commit));
        }
    }

    fn start_chore(&mut self, chore: Chore<S>) {
        if let Some(chores) = &self.chores {
            drop(chores.send(chore));
        }
    }

    fn poll(&mut self) -> Option<Done> {
        self.done.try_recv().ok()
    }
}

impl<S: Storage> Drop for IoThreads<S> {
    fn drop(&mut self) {
        self.commits = None;
        self.chores = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so on standard error.
            drop(thread.join());
        }
    }
}

#[derive(Clone, Debug)]
struct Report {
    done: Sender<Done>,
    handle: Handle,
}

impl Report {
    fn send(&self, done: Done) {
        self.tell(done);
        self.handle.nudge();
    }

    /// Without a nudge: something that comes soon brings one.
    fn tell(&self, done: Done) {
        drop(self.done.send(done));
    }
}

fn run_commit<S: Storage>(commit: &Commit<S>, report: &Report) {
    let written = commit.write();
    if written.is_err() || !commit.needs_sync() {
        report.send(Done::Written(written));
        return;
    }
    match commit.is_write_awaited() {
        true => report.send(Done::Written(written)),
        false => report.tell(Done::Written(written)),
    }
    report.send(Done::Synced(commit.sync()));
}
