//! The server: the threads and tasks around the driver, from the socket to a clean stop.

pub mod handle;
pub mod options;
pub mod port;
