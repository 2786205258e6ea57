//! Starts the service: `cargo web --port 3000`.

use atomic_cache_web::{App, Database};
use clap::Parser;
use std::error::Error;
use std::time::Duration;
use tokio::net::TcpListener;

/// A web service with a cache in front of a slow back end.
#[derive(Parser)]
struct Arguments {
    /// The port to listen on; 0 for any that is free.
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// How many milliseconds the back end takes for an answer.
    #[arg(long, default_value_t = 200)]
    latency: u64,
    /// For how many seconds an answer is served.
    #[arg(long, default_value_t = 60)]
    ttl: u64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let database = Database::new(Duration::from_millis(arguments.latency));
    let app = App::new(
        move |id| database.clone().user(id),
        Duration::from_secs(arguments.ttl),
    )?;
    let listener = TcpListener::bind(("127.0.0.1", arguments.port))
        .await
        .map_err(|error| format!("cannot listen on port {}: {error}", arguments.port))?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}; try: curl http://{address}/users/7");
    axum::serve(listener, app.clone().router())
        .with_graceful_shutdown(interrupted())
        .await?;
    let given_up = app.close(Duration::from_secs(5)).await;
    println!("stopped; calls given up: {given_up}");
    Ok(())
}

/// Ctrl-C: no new requests then, and an end when the running ones have been answered.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Nothing will tell of it, so the service runs until it is killed.
        std::future::pending::<()>().await;
    }
}
