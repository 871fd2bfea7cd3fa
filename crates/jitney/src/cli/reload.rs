//! SIGHUP: the configuration is read again. What can change in a running server does, and all else is named.

use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::tracing_level;
use crate::config::{self, Config, Sources};
use crate::server::Running;
use crate::telemetry;

/// Reads the configuration again and puts what it says in force. A configuration with a mistake changes nothing:
/// the log says what is wrong with it, and the server goes on. Gives back the configuration that is in force.
pub(super) async fn reload(running: &Running, sources: &Sources, before: Config) -> Config {
    let again = sources.clone();
    let read = spawn_blocking(move || config::load(&again)).await;
    let config = match read {
        Ok(Ok(config)) => config,
        Ok(Err(wrong)) => {
            running.reload_refused();
            error!("the configuration was not reloaded, and nothing has changed:\n{wrong}");
            return before;
        }
        Err(error) => {
            running.reload_refused();
            error!(%error, "the configuration was not reloaded, and nothing has changed");
            return before;
        }
    };
    if let Err(error) = running.reload(config.options.policies.clone(), &config.options.routes) {
        error!(%error, "the configuration was not reloaded, and nothing has changed");
        return before;
    }
    telemetry::set_level(tracing_level(config.log.level));
    for key in config.fixed_keys_changed(&before) {
        warn!(
            key,
            "this key of the configuration changed, and keeps its old value until the next start"
        );
    }
    let file = config.file.as_deref().map(|file| file.display().to_string());
    info!(file = file.as_deref().unwrap_or("none"), "configuration reloaded");
    config.with_fixed_keys_of(before)
}
