//! The server: the threads and tasks around the driver, from the socket to a clean stop.

pub mod handle;
pub mod io;
pub mod options;
pub mod port;
