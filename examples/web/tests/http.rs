//! The service over real connections.

use atomic_cache_web::{App, Database, User};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

const TTL: Duration = Duration::from_secs(100);
const CLIENTS: u64 = 100;

/// Runs it on a free port.
async fn start(app: App) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app.router()).await });
    address
}

/// A back end that answers when the gate has a permit for it.
fn gated(gate: &Arc<Semaphore>) -> App {
    let gate = Arc::clone(gate);
    let look_up = move |id| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            let name = "gated".to_owned();
            Some(User { id, name })
        }
    };
    App::new(look_up, TTL).unwrap()
}

/// Sends a request and does not wait for the answer.
async fn send(address: SocketAddr, method: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// The status of the answer, and its body if that is JSON.
async fn receive(mut stream: TcpStream) -> (u16, Value) {
    let mut text = String::new();
    let read = timeout(Duration::from_secs(30), stream.read_to_string(&mut text));
    read.await.expect("an answer in time").unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, Value) {
    receive(send(address, method, path).await).await
}

async fn stats(address: SocketAddr) -> Value {
    let (code, stats) = ask(address, "GET", "/stats").await;
    assert_eq!(code, 200);
    stats
}

/// Waits until a number of the stats becomes `number`.
async fn until(address: SocketAddr, field: &str, number: u64) -> Value {
    let wait = async {
        loop {
            let stats = stats(address).await;
            if stats[field] == number {
                return stats;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = timeout(Duration::from_secs(30), wait).await;
    waited.unwrap_or_else(|_| panic!("{field} never was {number}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_of_one_key_are_one_call() {
    let gate = Arc::new(Semaphore::new(0));
    let address = start(gated(&gate)).await;
    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        streams.push(send(address, "GET", "/users/7").await);
    }
    // The first began the call, and all the others wait for it.
    until(address, "joined", CLIENTS - 1).await;
    gate.add_permits(1);
    for stream in streams {
        let (status, user) = receive(stream).await;
        assert_eq!((status, &user["id"]), (200, &Value::from(7)));
    }
    let stats = stats(address).await;
    assert_eq!(stats["back_end_calls"], 1, "{stats}");
    assert_eq!(ask(address, "GET", "/users/7").await.0, 200);
    until(address, "hits", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_disconnect_do_not_lose_the_call_for_others() {
    let gate = Arc::new(Semaphore::new(0));
    let address = start(gated(&gate)).await;
    // The one that began it goes, and so do half of the others.
    let mut streams = vec![send(address, "GET", "/users/7").await];
    until(address, "back_end_calls", 1).await;
    for _ in 1..CLIENTS {
        streams.push(send(address, "GET", "/users/7").await);
    }
    until(address, "joined", CLIENTS - 1).await;
    let stay = streams.split_off(streams.len() / 2);
    drop(streams);
    // Time for the service to see it. Were that too short, this would pass all the same.
    sleep(Duration::from_millis(50)).await;
    gate.add_permits(1);
    for stream in stay {
        assert_eq!(receive(stream).await.0, 200);
    }
    let stats = stats(address).await;
    assert_eq!(stats["back_end_calls"], 1, "{stats}");
    assert_eq!(stats["orphaned_fills"], 0, "{stats}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_clients_have_gone_the_call_goes_on() {
    let gate = Arc::new(Semaphore::new(0));
    let address = start(gated(&gate)).await;
    let mut streams = Vec::new();
    for _ in 0..CLIENTS {
        streams.push(send(address, "GET", "/users/7").await);
    }
    until(address, "joined", CLIENTS - 1).await;
    drop(streams);
    // No client waits for it any more.
    until(address, "orphaned_fills", 1).await;
    gate.add_permits(1);
    until(address, "cached", 1).await;
    assert_eq!(ask(address, "GET", "/users/7").await.0, 200);
    let stats = stats(address).await;
    assert_eq!(stats["back_end_calls"], 1, "{stats}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_closes_waits_for_calls_without_a_client() {
    let gate = Arc::new(Semaphore::new(0));
    let app = gated(&gate);
    let address = start(app.clone()).await;
    for (path, number) in [("/users/7", 1), ("/users/8", 2)] {
        let stream = send(address, "GET", path).await;
        until(address, "back_end_calls", number).await;
        drop(stream);
        until(address, "orphaned_fills", number).await;
    }
    // One is done in time, the other never.
    gate.add_permits(1);
    assert_eq!(app.close(Duration::from_millis(200)).await, 1);
    until(address, "cached", 1).await;
}

#[tokio::test]
async fn a_key_that_is_dropped_is_looked_up_again() {
    let database = Database::new(Duration::from_millis(1));
    let app = App::new(move |id| database.clone().user(id), TTL).unwrap();
    let address = start(app).await;
    for _ in 0..2 {
        let (status, user) = ask(address, "GET", "/users/12").await;
        assert_eq!((status, &user["name"]), (200, &Value::from("user 12")));
    }
    let (status, dropped) = ask(address, "DELETE", "/users/12").await;
    assert_eq!((status, &dropped["was_cached"]), (200, &Value::from(true)));
    let (_, dropped) = ask(address, "DELETE", "/users/12").await;
    assert_eq!(dropped["was_cached"], false);
    assert_eq!(ask(address, "GET", "/users/12").await.0, 200);
    until(address, "back_end_calls", 2).await;
    // "No such user" is an answer, and cached.
    for _ in 0..2 {
        assert_eq!(ask(address, "GET", "/users/1001").await.0, 404);
    }
    assert_eq!(stats(address).await["back_end_calls"], 3);
    assert_eq!(ask(address, "GET", "/users/nobody").await.0, 400);
}

/// The program itself. A request that runs when ctrl-c comes is answered first.
#[cfg(unix)]
#[tokio::test]
async fn the_program_says_where_it_listens_and_ends_in_good_order() {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    /// Ends it also if the test fails.
    struct Program(Child);

    impl Drop for Program {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    let mut program = Command::new(env!("CARGO_BIN_EXE_atomic-cache-web"));
    program.args(["--port", "0", "--latency", "500"]);
    let mut program = Program(program.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(program.0.stdout.take().unwrap()).lines();
    let line = lines.next().unwrap().unwrap();
    let (_, address) = line.split_once("http://").expect("an address");
    let address = address.split(';').next().unwrap().parse().unwrap();

    let running = send(address, "GET", "/users/7").await;
    until(address, "back_end_calls", 1).await;
    let pid = program.0.id().to_string();
    let interrupted = Command::new("kill").args(["-INT", &pid]).status();
    assert!(interrupted.unwrap().success());
    let (status, user) = receive(running).await;
    assert_eq!((status, &user["name"]), (200, &Value::from("user 7")));
    let last = lines.next().unwrap().unwrap();
    assert_eq!(last, "stopped; calls given up: 0");
    assert!(program.0.wait().unwrap().success());
}
