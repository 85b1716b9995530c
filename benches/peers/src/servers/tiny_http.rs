//! By hand on tiny_http, r2d2 and redis, as one writes it without a framework: a session is a hash under the id that
//! its cookie holds.

use std::sync::Arc;
use std::thread;

use redis::{Client, Commands, Connection, RedisResult};
use tiny_http::{Header, Request, Response, Server};

use super::LIFETIME;
use crate::Failure;

/// As many threads as connections, so that none waits for one.
const THREADS: u32 = 16;
const COOKIE: &str = "id";

pub fn serve(address: &str, redis: &str) -> Result<(), Failure> {
    let pool = r2d2::Pool::builder()
        .max_size(THREADS)
        // By default r2d2 sends a PING each time that it lends a connection.
        .test_on_check_out(false)
        .build(Client::open(redis)?)?;
    let server = Arc::new(Server::http(address).map_err(|error| error.to_string())?);
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (pool, server) = (pool.clone(), server.clone());
            thread::spawn(move || {
                while let Ok(request) = server.recv() {
                    let answer = answer(&request, &pool).unwrap_or_else(|error| {
                        Response::from_string(error.to_string()).with_status_code(500)
                    });
                    // A client that has left hears nothing.
                    let _ = request.respond(answer);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a thread of the server panicked")?;
    }
    Ok(())
}

type Answer = Response<std::io::Cursor<Vec<u8>>>;

fn answer(request: &Request, pool: &r2d2::Pool<Client>) -> Result<Answer, Failure> {
    let path = request.url();
    if path == "/plain" {
        return Ok(Response::from_string("hello"));
    }
    let redis = &mut *pool.get()?;
    if let Some(name) = path.strip_prefix("/create/") {
        let id = new_id()?;
        write(redis, &id, "name", name)?;
        let cookie = format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Lax");
        let cookie = Header::from_bytes("Set-Cookie", cookie).map_err(|()| "a bad cookie")?;
        return Ok(Response::from_string("created").with_header(cookie));
    }
    let id = session_id(request).unwrap_or_default();
    Ok(match path {
        "/read" => {
            let name: Option<String> = read(redis, id, "name")?;
            Response::from_string(format!("Hello, {}", name.as_deref().unwrap_or("?")))
        }
        "/change" => {
            let count = read::<u64>(redis, id, "count")?.unwrap_or(0) + 1;
            write(redis, id, "count", &count.to_string())?;
            Response::from_string(count.to_string())
        }
        "/count" => {
            Response::from_string(read::<u64>(redis, id, "count")?.unwrap_or(0).to_string())
        }
        _ => Response::from_string("not found").with_status_code(404),
    })
}

fn read<T: redis::FromRedisValue>(
    redis: &mut Connection,
    id: &str,
    field: &str,
) -> RedisResult<Option<T>> {
    redis.hget(format!("session:{id}"), field)
}

/// In one round trip, with the lifetime.
fn write(redis: &mut Connection, id: &str, field: &str, value: &str) -> RedisResult<()> {
    let key = format!("session:{id}");
    let seconds = LIFETIME.as_secs() as i64;
    redis::pipe().atomic().hset(&key, field, value).expire(&key, seconds).exec(redis)
}

fn session_id(request: &Request) -> Option<&str> {
    let cookies = request.headers().iter().find(|header| header.field.equiv("Cookie"))?;
    cookies.value.as_str().split("; ").find_map(|pair| pair.strip_prefix(COOKIE)?.strip_prefix('='))
}

fn new_id() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
