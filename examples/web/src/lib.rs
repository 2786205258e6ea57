//! A web service in front of a slow back end, with an [`AtomicCache`] between them.
//!
//! | request | answer |
//! |---|---|
//! | `GET /users/{id}` | the user as JSON, or 404; of all requests for a user at once, one asks the back end |
//! | `DELETE /users/{id}` | drops the cached answer about that user: the next `GET` asks the back end again |
//! | `GET /stats` | the counts of cache and back end, as JSON |

use atomic_cache::{AtomicCache, BuildError};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A user, as the back end knows them.
#[derive(Debug, Serialize)]
pub struct User {
    /// The number it is asked for by.
    pub id: u64,
    /// Their name.
    pub name: String,
}

/// A stand-in for a database: it knows the users from 1 to 1000, and takes its time.
#[derive(Clone, Debug)]
pub struct Database {
    latency: Duration,
}

impl Database {
    /// One that answers after `latency`.
    #[must_use]
    pub fn new(latency: Duration) -> Self {
        Self { latency }
    }

    /// The user of that number, if there is one.
    pub async fn user(self, id: u64) -> Option<User> {
        tokio::time::sleep(self.latency).await;
        (1..=1000).contains(&id).then(|| User {
            id,
            name: format!("user {id}"),
        })
    }
}

/// The cache, and the counts beside it.
#[derive(Clone, Debug)]
pub struct App {
    /// `None`: there is no such user, which is as good a value as any. An `Arc`, because each request
    /// gets a clone.
    users: AtomicCache<u64, Option<Arc<User>>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    back_end_calls: AtomicU64,
    orphans: AtomicU64,
}

impl App {
    /// Makes a service for the users that `look_up` finds; each answer, a "no" included, is served for `ttl`.
    ///
    /// # Errors
    /// None that these settings can cause.
    pub fn new<F>(
        look_up: impl Fn(u64) -> F + Send + Sync + 'static,
        ttl: Duration,
    ) -> Result<Self, BuildError>
    where
        F: Future<Output = Option<User>> + Send + 'static,
    {
        let counts = Arc::new(Counts::default());
        let (calls, orphans) = (Arc::clone(&counts), Arc::clone(&counts));
        let users = AtomicCache::builder()
            .name("users")
            .time_to_live(ttl)
            .max_capacity(10_000)
            .record_stats(true)
            // A client that disconnects drops its wait. When the last of them does, the fill goes on as
            // a task: the work is half done, and the next client will want it.
            .spawner(move |fill| {
                orphans.orphans.fetch_add(1, Relaxed);
                drop(tokio::spawn(fill));
            })
            .build_with_async(move |id| {
                calls.back_end_calls.fetch_add(1, Relaxed);
                let user = look_up(id);
                async move { user.await.map(Arc::new) }
            })?;
        Ok(Self { users, counts })
    }

    /// The routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/users/{id}", get(user).delete(forget))
            .route("/stats", get(stats))
            .with_state(self)
    }

    /// Ends: calls of the back end that go on without a client get so long to do so, and no new ones
    /// begin. How many were given up.
    pub async fn close(&self, patience: Duration) -> usize {
        let deadline = tokio::time::sleep(patience);
        self.users.close_async_until(deadline).await
    }
}

/// The whole of it is `get_async`: if another request asks for that user already, it waits for the answer of that one.
async fn user(State(app): State<App>, Path(id): Path<u64>) -> Result<Json<Arc<User>>, StatusCode> {
    let user = app.users.get_async(&id).await;
    user.map(Json).ok_or(StatusCode::NOT_FOUND)
}

/// A request that arrives after this one's answer does not get a user that was read before it.
async fn forget(State(app): State<App>, Path(id): Path<u64>) -> Json<Forgotten> {
    let was_cached = app.users.invalidate_async(&id).await;
    Json(Forgotten { was_cached })
}

#[derive(Serialize)]
struct Forgotten {
    was_cached: bool,
}

async fn stats(State(app): State<App>) -> Json<Stats> {
    let stats = app.users.stats();
    Json(Stats {
        back_end_calls: app.counts.back_end_calls.load(Relaxed),
        cached: app.users.len(),
        hits: stats.hits,
        misses: stats.misses,
        fills: stats.fills,
        joined: stats.joined,
        orphaned_fills: app.counts.orphans.load(Relaxed),
    })
}

#[derive(Serialize)]
struct Stats {
    back_end_calls: u64,
    cached: usize,
    hits: Option<u64>,
    misses: Option<u64>,
    /// Answers of the back end that were kept.
    fills: u64,
    /// Requests that waited for a call that was running already.
    joined: u64,
    /// Calls that lost all their clients, and went on.
    orphaned_fills: u64,
}
