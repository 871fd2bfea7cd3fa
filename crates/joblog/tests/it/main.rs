//! What the log promises, on a simulated disk: one file per promise.

#[cfg(test)]
mod crash;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod support;
