//! A proxy that puts Redis farther away: what comes in on either side goes out on the other one a fixed time later,
//! in order, however much is under way. One thread, so that it takes little from the two sides that are measured.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{self, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::Failure;

const LISTENER: u64 = 0;
const TIMER: u64 = 1;
const LARGEST_CHUNK: usize = 256 * 1024;

/// Passes connections to `listen` on to `target`. `delay` is that of each direction.
pub fn serve(listen: &str, target: &str, delay: Duration) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    // Times of epoll itself are whole milliseconds.
    let timer = time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
    let mut proxy = Proxy {
        epoll,
        delay,
        ends: HashMap::new(),
        under_way: VecDeque::new(),
        buffer: vec![0; LARGEST_CHUNK],
    };
    let mut events = Vec::with_capacity(256);
    let mut next = TIMER + 1;
    loop {
        events.clear();
        match epoll::wait(&proxy.epoll, spare_capacity(&mut events), None) {
            Err(rustix::io::Errno::INTR) => continue,
            done => done?,
        };
        for event in events.drain(..) {
            match (event.data.u64(), event.flags) {
                (LISTENER, _) => {
                    while let Ok((client, _)) = listener.accept() {
                        proxy.connect(client, TcpStream::connect(target)?, next)?;
                        next += 2;
                    }
                }
                (TIMER, _) => {}
                (token, flags) => {
                    if flags.contains(EventFlags::OUT) {
                        proxy.write(token, &[])?;
                    }
                    if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                        proxy.read(token)?;
                    }
                }
            }
        }
        proxy.deliver()?;
        proxy.set(&timer)?;
    }
}

struct Proxy {
    epoll: OwnedFd,
    delay: Duration,
    /// Tokens of the two ends of one connection are an even number and the odd one after it.
    ends: HashMap<u64, End>,
    /// In the order in which they are due, as all take equally long.
    under_way: VecDeque<Chunk>,
    buffer: Vec<u8>,
}

struct End {
    stream: TcpStream,
    /// What this end has not taken yet.
    backlog: Vec<u8>,
}

struct Chunk {
    due: Instant,
    to: u64,
    /// Nothing: the other end has closed.
    bytes: Vec<u8>,
}

impl Proxy {
    fn connect(&mut self, client: TcpStream, server: TcpStream, token: u64) -> Result<(), Failure> {
        for (stream, token) in [(client, token), (server, token + 1)] {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll::add(&self.epoll, &stream, EventData::new_u64(token), EventFlags::IN)?;
            self.ends.insert(token, End { stream, backlog: Vec::new() });
        }
        Ok(())
    }

    fn read(&mut self, token: u64) -> Result<(), Failure> {
        let Some(end) = self.ends.get_mut(&token) else { return Ok(()) };
        let bytes = match end.stream.read(&mut self.buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Ok(length) if length > 0 => self.buffer[..length].to_vec(),
            // Nothing comes from this end any more; it is removed with the other one.
            _ => {
                epoll::delete(&self.epoll, &end.stream)?;
                Vec::new()
            }
        };
        self.under_way.push_back(Chunk { due: Instant::now() + self.delay, to: token ^ 1, bytes });
        Ok(())
    }

    fn deliver(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        while self.under_way.front().is_some_and(|chunk| chunk.due <= now) {
            let Some(Chunk { to, bytes, .. }) = self.under_way.pop_front() else { break };
            if bytes.is_empty() {
                self.close(to);
            } else {
                self.write(to, &bytes)?;
            }
        }
        Ok(())
    }

    /// Writes what has waited, and then `bytes`; what the end does not take waits on.
    fn write(&mut self, token: u64, bytes: &[u8]) -> Result<(), Failure> {
        let Some(end) = self.ends.get_mut(&token) else { return Ok(()) };
        let had_waited = !end.backlog.is_empty();
        let mut waiting = std::mem::take(&mut end.backlog);
        let mut left = bytes;
        if had_waited {
            waiting.extend_from_slice(bytes);
            left = &waiting;
        }
        while !left.is_empty() {
            match end.stream.write(left) {
                Ok(length) => left = &left[length..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.close(token);
                    return Ok(());
                }
            }
        }
        end.backlog = left.to_vec();
        let waits = !left.is_empty();
        if waits != had_waited {
            let flags = if waits { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            // An end that has closed is no longer registered.
            let _ = epoll::modify(&self.epoll, &end.stream, EventData::new_u64(token), flags);
        }
        Ok(())
    }

    fn close(&mut self, token: u64) {
        for token in [token, token ^ 1] {
            if let Some(end) = self.ends.remove(&token) {
                let _ = end.stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// To the moment when the next chunk is due, or to none.
    fn set(&self, timer: &OwnedFd) -> Result<(), Failure> {
        let wait = self.under_way.front().map_or(Duration::ZERO, |chunk| {
            // Zero would switch the timer off.
            chunk.due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1))
        });
        let times = Itimerspec {
            it_interval: Timespec::try_from(Duration::ZERO)?,
            it_value: Timespec::try_from(wait)?,
        };
        time::timerfd_settime(timer, TimerfdTimerFlags::empty(), &times)?;
        Ok(())
    }
}
