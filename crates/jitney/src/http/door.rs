//! The front door: what is served now. The routes may be exchanged while it serves; each request is answered
//! by what was served when it came.

use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;

use super::route_table::RouteError;
use super::{App, router};
use crate::server::options::Route;

/// What is served. Cheap to clone; all clones are one door.
#[derive(Clone, Debug)]
pub struct Door {
    served: Arc<RwLock<Served>>,
}

#[derive(Clone, Debug)]
struct Served {
    app: App,
    router: Router,
}

impl Door {
    /// A door to this.
    #[must_use]
    pub fn new(app: App) -> Self {
        let router = router(&app);
        Self {
            served: Arc::new(RwLock::new(Served { app, router })),
        }
    }

    /// Serves these routes in the place of those before, and shows them in the OpenAPI document.
    ///
    /// # Errors
    /// [`RouteError`] if one cannot be served; then nothing has changed.
    pub fn exchange_routes(&self, routes: &[Route]) -> Result<(), RouteError> {
        let app = self.app().with_routes(routes)?;
        let router = router(&app);
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = Served { app, router };
        Ok(())
    }

    pub(crate) fn app(&self) -> App {
        self.now(|served| served.app.clone())
    }

    /// What answers a request that comes now.
    pub(super) fn served(&self) -> (App, Router) {
        self.now(|served| (served.app.clone(), served.router.clone()))
    }

    fn now<T>(&self, read: impl FnOnce(&Served) -> T) -> T {
        read(&self.served.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl From<App> for Door {
    fn from(app: App) -> Self {
        Self::new(app)
    }
}
