//! Carries a plan out: everything is written and synced under other names before any segment's name changes hands.

use std::io;

use super::image::image_of;
use super::{RepairError, Step};
use crate::segment::mending_name;
use crate::storage::{File, Storage};

/// How much is copied at once.
const COPY_BYTES: u64 = 1 << 20;

pub(super) fn carry_out<S: Storage>(storage: &S, steps: &[Step]) -> Result<(), RepairError> {
    let failed = |file: &str| {
        let file = file.to_owned();
        move |source| RepairError::Write { file, source }
    };
    clear(storage).map_err(failed("the directory"))?;
    for step in steps {
        if let Err((file, source)) = prepare(storage, step) {
            // A full disk shall not stay full for our sake; what cannot be removed is removed the next time.
            clear(storage).ok();
            return Err(RepairError::Write { file, source });
        }
    }
    // Law: every byte that is kept or mended is durable before a damaged one loses its name.
    storage.sync_dir().map_err(failed("the directory"))?;
    for step in steps {
        let (from, to) = match step {
            Step::Mend { name, number, .. } | Step::Fill { name, number, .. } => {
                (mending_name(*number), name)
            }
            Step::Aside { name, kept } => (name.clone(), kept),
        };
        storage.rename(&from, to).map_err(failed(to))?;
        storage.sync_dir().map_err(failed("the directory"))?;
    }
    Ok(())
}

/// Removes what a repair that was cut off left half written.
fn clear<S: Storage>(storage: &S) -> io::Result<()> {
    for name in storage.list()? {
        if name.starts_with("mending-") {
            storage.remove(&name)?;
        }
    }
    Ok(())
}

fn prepare<S: Storage>(storage: &S, step: &Step) -> Result<(), (String, io::Error)> {
    let number = match step {
        Step::Aside { .. } => return Ok(()),
        Step::Fill { number, .. } => *number,
        Step::Mend {
            name, number, kept, ..
        } => {
            let source = storage.open(name).map_err(|error| (name.clone(), error))?;
            for (offset, bytes, keeper) in kept {
                copy(storage, &source, *offset, *bytes, keeper).map_err(|error| (keeper.clone(), error))?;
            }
            *number
        }
    };
    let name = mending_name(number);
    let write = || {
        let image = image_of(storage, step)?;
        copy(storage, &image, 0, image.len()?, &name)
    };
    write().map_err(|error| (name.clone(), error))
}

/// Makes a file of these bytes, and syncs it.
fn copy<S: Storage>(storage: &S, from: &impl File, offset: u64, bytes: u64, to: &str) -> io::Result<()> {
    let file = storage.create(to)?;
    let mut done = 0;
    while done < bytes {
        let block = (bytes - done).min(COPY_BYTES);
        let mut buffer = vec![0; usize::try_from(block).map_err(io::Error::other)?];
        from.read_at(&mut buffer, offset + done)?;
        file.write_at(&buffer, done)?;
        done += block;
    }
    file.sync_data()
}
