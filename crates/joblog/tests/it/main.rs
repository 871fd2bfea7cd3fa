//! What the log promises, on a simulated disk: one file per promise.

#[cfg(test)]
mod copy;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod dir;
#[cfg(test)]
mod disk_full;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod repair;
#[cfg(test)]
mod repair_cold;
#[cfg(test)]
mod repair_flips;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod support;
