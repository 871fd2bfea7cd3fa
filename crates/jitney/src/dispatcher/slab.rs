//! Room for many equal things, each under a small number, without copying them when it grows.

/// Things per chunk: growing allocates one chunk and never moves what is there.
const CHUNK: usize = 1024;

/// Values under keys that are reused after removal.
#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
    len: usize,
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            free: Vec::new(),
            len: 0,
        }
    }

    pub(super) fn insert(&mut self, value: T) -> u32 {
        self.len += 1;
        if let Some(key) = self.free.pop() {
            *self.cell(key) = Some(value);
            return key;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let full = (self.chunks.len() - 1) * CHUNK;
        let chunk = self
            .chunks
            .last_mut()
            .expect("a chunk was pushed if none had room");
        chunk.push(Some(value));
        u32::try_from(full + chunk.len() - 1).expect("fewer than 4 billion jobs fit in memory")
    }

    pub(super) fn remove(&mut self, key: u32) -> T {
        let value = self.cell(key).take().expect("a key is removed once");
        self.free.push(key);
        self.len -= 1;
        value
    }

    /// The value under a key that may be free.
    pub(super) fn get(&self, key: u32) -> Option<&T> {
        let (chunk, at) = place(key);
        self.chunks.get(chunk)?.get(at)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: u32) -> Option<&mut T> {
        let (chunk, at) = place(key);
        self.chunks.get_mut(chunk)?.get_mut(at)?.as_mut()
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let cells = self.chunks.iter().flatten();
        (0..)
            .zip(cells)
            .filter_map(|(key, cell)| Some((key, cell.as_ref()?)))
    }

    fn cell(&mut self, key: u32) -> &mut Option<T> {
        let (chunk, at) = place(key);
        &mut self.chunks[chunk][at]
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = T;

    fn index(&self, key: u32) -> &T {
        let (chunk, at) = place(key);
        self.chunks[chunk][at]
            .as_ref()
            .expect("a key in use has its value")
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, key: u32) -> &mut T {
        self.cell(key).as_mut().expect("a key in use has its value")
    }
}

fn place(key: u32) -> (usize, usize) {
    let key = usize::try_from(key).expect("a pointer has at least 32 bits");
    (key / CHUNK, key % CHUNK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_key_is_used_again_and_the_others_stay() {
        let mut slab = Slab::new();
        let keys: Vec<u32> = (0..3000).map(|n| slab.insert(n)).collect();
        assert_eq!(slab.remove(keys[1500]), 1500);
        assert_eq!(slab.insert(7), keys[1500]);
        assert_eq!(
            (slab[keys[0]], slab[keys[1500]], slab[keys[2999]], slab.len()),
            (0, 7, 2999, 3000)
        );
        assert_eq!(slab.iter().count(), 3000);
    }
}
