//! A simulated disk: what was not synced may be torn, lost, or arrive out of order when the power goes.
//!
//! In: file operations, faults to come, and crashes with a seed. Out: the same [`Storage`] as a real directory.
//! Everything follows from the calls and the seeds: the same calls give the same disk.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::storage::{File, Storage};

/// What the medium writes whole or not at all.
const SECTOR: usize = 512;

/// A disk with one directory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// The crash count when this handle was made: after a crash older handles are dead.
    boot: u64,
}

/// A file of a [`SimDisk`].
pub struct SimFile {
    disk: SimDisk,
    inode: u64,
}

#[derive(Default)]
struct State {
    /// Names as programs see them, and as they would be after a crash.
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Directory changes since the last sync, in order.
    changes: Vec<Change>,
    inodes: HashMap<u64, Inode>,
    next_inode: u64,
    boot: u64,
    capacity: Option<u64>,
    faults: Faults,
    counts: Counts,
}

#[derive(Default)]
struct Faults {
    /// After so many more changes the power is off.
    power_off_after: Option<u64>,
    /// How many writes pass before, and how many bytes of the one that does not.
    write_full_after: Option<(usize, usize)>,
    create_full: bool,
    write_error: bool,
    sync_error: bool,
    dir_sync_error: bool,
}

/// How often the disk was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of `write_at`.
    pub writes: u64,
    /// Calls of `sync_data`.
    pub syncs: u64,
    /// Calls of `sync_dir`.
    pub dir_syncs: u64,
}

enum Change {
    Add(String, u64),
    Remove(String),
    Rename(String, String),
}

#[derive(Default)]
struct Inode {
    /// What programs read.
    cache: Vec<u8>,
    /// What the medium holds for sure.
    durable: Vec<u8>,
    /// Sector writes since the last sync, in order: the sector's number and its content at that time.
    pending: Vec<(usize, Vec<u8>)>,
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts the power: of what was not synced a random part stays, sector by sector, and of the directory
    /// changes that were not synced the first few. Gives the disk as the next start finds it; older handles
    /// and their files fail from now on. Faults that have not struck are forgotten.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let mut state = self.lock();
        let mut random = Random(seed);
        let mut inodes: Vec<_> = state.inodes.keys().copied().collect();
        inodes.sort_unstable();
        for id in inodes {
            let keep = random.next() % 5;
            let Some(inode) = state.inodes.get_mut(&id) else {
                continue;
            };
            for (sector, content) in std::mem::take(&mut inode.pending) {
                // From "nothing was written back" to "everything was", so that both ends are common.
                if random.next() % 4 < keep {
                    put(&mut inode.durable, sector * SECTOR, &content);
                }
            }
            inode.cache.clone_from(&inode.durable);
        }
        let changes = std::mem::take(&mut state.changes);
        let kept = usize::try_from(random.next()).unwrap_or(0) % (changes.len() + 1);
        for change in changes.into_iter().take(kept) {
            change.apply(&mut state.durable_names);
        }
        state.names = state.durable_names.clone();
        self.next_boot(state)
    }

    /// Ends the process but not the machine: everything that was written stays, synced or not.
    #[must_use]
    pub fn kill(&self) -> Self {
        let state = self.lock();
        self.next_boot(state)
    }

    /// The next write stops after `bytes` bytes, with "no space left on device".
    pub fn fail_next_write_full(&self, bytes: usize) {
        self.fail_nth_write_full(0, bytes);
    }

    /// After `writes` more writes the next stops after `bytes` bytes, with "no space left on device".
    pub fn fail_nth_write_full(&self, writes: usize, bytes: usize) {
        self.lock().faults.write_full_after = Some((writes, bytes));
    }

    /// Lets `changes` more writes, syncs and directory changes through; then the power is off, in the middle of the
    /// next, and everything fails until [`SimDisk::crash`].
    pub fn power_off_after(&self, changes: u64) {
        self.lock().faults.power_off_after = Some(changes);
    }

    /// The next file that is made finds no room for its name.
    pub fn fail_next_create_full(&self) {
        self.lock().faults.create_full = true;
    }

    /// The next write fails with an I/O error, and half of it is written.
    pub fn fail_next_write(&self) {
        self.lock().faults.write_error = true;
    }

    /// The next sync of a file fails. What it should have made durable stays readable until the next
    /// crash, and is gone after it.
    pub fn fail_next_sync(&self) {
        self.lock().faults.sync_error = true;
    }

    /// The next sync of the directory fails.
    pub fn fail_next_dir_sync(&self) {
        self.lock().faults.dir_sync_error = true;
    }

    /// Files may hold so many bytes in all; `None` means no limit. What is there stays.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity = bytes;
    }

    /// Flips the lowest bit of one byte, as a failing medium does.
    ///
    /// # Panics
    /// If there is no such file or byte.
    pub fn flip(&self, name: &str, offset: usize) {
        let mut state = self.lock();
        let id = state.names[name];
        let inode = state.inodes.get_mut(&id).expect("a name has an inode");
        inode.cache[offset] ^= 1;
        if let Some(byte) = inode.durable.get_mut(offset) {
            *byte ^= 1;
        }
    }

    /// The content of a file, as programs see it.
    ///
    /// # Panics
    /// If there is no such file.
    #[must_use]
    pub fn content(&self, name: &str) -> Vec<u8> {
        let state = self.lock();
        state.inodes[&state.names[name]].cache.clone()
    }

    /// Puts a file there, durably.
    pub fn plant(&self, name: &str, content: &[u8]) {
        let mut state = self.lock();
        let id = state.new_inode();
        state.inodes.insert(
            id,
            Inode {
                cache: content.to_vec(),
                durable: content.to_vec(),
                pending: Vec::new(),
            },
        );
        state.names.insert(name.to_owned(), id);
        state.durable_names.insert(name.to_owned(), id);
    }

    /// Bytes of all files that have a name.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// How often the disk was asked so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, if this handle is not from before a crash.
    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.boot == self.boot {
            Ok(state)
        } else {
            Err(io::Error::other("this handle is from before a crash"))
        }
    }

    fn next_boot(&self, mut state: MutexGuard<'_, State>) -> Self {
        state.boot += 1;
        state.faults = Faults::default();
        let boot = state.boot;
        let names = state.names.values().chain(state.durable_names.values());
        // A change that is not durable yet may come back with a power cut, and its file with it.
        let added = state.changes.iter().filter_map(|change| match change {
            Change::Add(_, inode) => Some(inode),
            Change::Rename(..) | Change::Remove(_) => None,
        });
        let named: Vec<u64> = names.chain(added).copied().collect();
        state.inodes.retain(|id, _| named.contains(id));
        Self {
            state: Arc::clone(&self.state),
            boot,
        }
    }
}

impl State {
    fn new_inode(&mut self) -> u64 {
        self.next_inode += 1;
        self.next_inode
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .map(|id| self.inodes[id].cache.len())
            .map(bytes)
            .sum()
    }

    /// A directory change; the power may go in the middle of it.
    fn change(&mut self, change: Change) -> io::Result<()> {
        change.apply(&mut self.names);
        self.changes.push(change);
        self.power()
    }

    /// Counts one change. Fails if the power is off.
    fn power(&mut self) -> io::Result<()> {
        let Some(left) = &mut self.faults.power_off_after else {
            return Ok(());
        };
        *left = left
            .checked_sub(1)
            .ok_or_else(|| io::Error::other("the power is off"))?;
        Ok(())
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Add(name, id) => {
                names.insert(name.clone(), *id);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
        }
    }
}

impl Inode {
    fn write(&mut self, content: &[u8], offset: usize) {
        if content.is_empty() {
            return;
        }
        put(&mut self.cache, offset, content);
        let (first, last) = (offset / SECTOR, (offset + content.len() - 1) / SECTOR);
        for sector in first..=last {
            let end = ((sector + 1) * SECTOR).min(self.cache.len());
            self.pending
                .push((sector, self.cache[sector * SECTOR..end].to_vec()));
        }
    }
}

impl Storage for SimDisk {
    type File = SimFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.alive()?.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let inode = *self.alive()?.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(SimFile {
            disk: self.clone(),
            inode,
        })
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        let mut state = self.alive()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if std::mem::take(&mut state.faults.create_full) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = state.new_inode();
        state.inodes.insert(inode, Inode::default());
        state.change(Change::Add(name.to_owned(), inode))?;
        Ok(SimFile {
            disk: self.clone(),
            inode,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.alive()?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.alive()?;
        if !state.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(Change::Remove(name.to_owned()))
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.alive()?;
        state.counts.dir_syncs += 1;
        state.power()?;
        if std::mem::take(&mut state.faults.dir_sync_error) {
            return Err(io::Error::other("simulated failure of a directory sync"));
        }
        state.changes.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(bytes(self.disk.alive()?.inodes[&self.inode].cache.len()))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.alive()?;
        let start = index(offset);
        let from = state.inodes[&self.inode].cache.get(start..start + buffer.len());
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, content: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.alive()?;
        state.counts.writes += 1;
        let offset = index(offset);
        let mut allowed = content.len();
        if let Some(capacity) = state.capacity {
            let length = state.inodes[&self.inode].cache.len();
            let room = index(capacity.saturating_sub(state.used()));
            allowed = allowed.min((length + room).saturating_sub(offset));
        }
        let mut failure = io::ErrorKind::StorageFull;
        let full = state.faults.write_full_after.take();
        if let Some((0, after)) = full {
            allowed = allowed.min(after).min(content.len().saturating_sub(1));
        } else if std::mem::take(&mut state.faults.write_error) {
            (allowed, failure) = (content.len() / 2, io::ErrorKind::Other);
        }
        state.faults.write_full_after =
            full.and_then(|(writes, after)| Some((writes.checked_sub(1)?, after)));
        let inode = state
            .inodes
            .get_mut(&self.inode)
            .expect("an open file has an inode");
        inode.write(&content[..allowed], offset);
        state.power()?;
        if allowed == content.len() {
            Ok(())
        } else {
            Err(failure.into())
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.alive()?;
        state.counts.syncs += 1;
        state.power()?;
        let failed = std::mem::take(&mut state.faults.sync_error);
        let inode = state
            .inodes
            .get_mut(&self.inode)
            .expect("an open file has an inode");
        if failed {
            inode.pending.clear();
            return Err(io::Error::other("simulated failure of a sync"));
        }
        for (sector, content) in std::mem::take(&mut inode.pending) {
            put(&mut inode.durable, sector * SECTOR, &content);
        }
        Ok(())
    }
}

fn put(file: &mut Vec<u8>, offset: usize, content: &[u8]) {
    let end = offset + content.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(content);
}

fn bytes(length: usize) -> u64 {
    u64::try_from(length).expect("a length fits in 64 bits")
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("simulated files are small")
}

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    #[expect(
        clippy::should_implement_trait,
        reason = "it never ends and is no iterator to its users"
    )]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file was made and removed, the process killed, and the power cut before either was durable: the file may be
    /// back, and had no content to read.
    #[test]
    fn a_file_that_a_power_cut_brings_back_can_be_read() {
        for seed in 0..40 {
            let disk = SimDisk::new();
            disk.create("a").unwrap();
            disk.remove("a").unwrap();
            let disk = disk.kill().crash(seed);
            let back = disk.list().unwrap();
            assert!(back.iter().all(|name| disk.content(name).is_empty()), "{back:?}");
        }
    }
}
