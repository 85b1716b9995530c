//! A TCP proxy in front of a redis-server that does on command what networks and servers do on their own.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

/// What happens to what passes through, until the next command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// Replies arrive this much later.
    Delay(Duration),
    /// Replies are held; the next command lets them go, late.
    Stall,
    /// A reply's bytes arrive one at a time, this far apart.
    Trickle(Duration),
    /// The connection is closed where a request arrives; the server never sees it.
    CutBefore,
    /// The connection is closed where the reply arrives: the server has done it, the client never knows.
    CutAfter,
    /// One in so many chunks, in either direction, is cut in the middle, and the connection with it.
    CutAtRandom(u32),
    /// In place of each reply comes this.
    Garbage(&'static [u8]),
    /// Each command is answered with this line; the server never sees it.
    Answer(&'static str),
    /// Connections are accepted and closed at once.
    Refuse,
    /// Connections are accepted, and that is all.
    Mute,
}

pub struct FaultProxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Where new connections lead.
    upstream: SocketAddr,
    fault: Fault,
    /// Both ends of each connection, by its number.
    open: BTreeMap<usize, (TcpStream, Option<TcpStream>)>,
    accepted: usize,
    affected: u64,
    random: u64,
    ended: bool,
}

impl FaultProxy {
    /// A proxy in front of the server on this port of this machine.
    pub fn start(upstream: u16) -> FaultProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            upstream: SocketAddr::from(([127, 0, 0, 1], upstream)),
            fault: Fault::Pass,
            open: BTreeMap::new(),
            accepted: 0,
            affected: 0,
            random: 0x2545_f491_4f6c_dd1d,
            ended: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let proxy = shared.clone();
        let accepting = std::thread::spawn(move || proxy.accept(&listener));
        FaultProxy { address, shared, accepting: Some(accepting) }
    }

    pub fn url(&self) -> String {
        format!("redis://{}/0", self.address)
    }

    /// From now on, this happens. What was held is let go.
    pub fn set(&self, fault: Fault) {
        let mut state = self.shared.lock();
        state.fault = fault;
        state.affected = 0;
        self.shared.changed.notify_all();
    }

    /// From now on new connections lead to the server on this port; those that are there stay where they are.
    pub fn lead_to(&self, upstream: u16) {
        self.shared.lock().upstream = SocketAddr::from(([127, 0, 0, 1], upstream));
    }

    /// Closes all connections.
    pub fn cut(&self) {
        let open = std::mem::take(&mut self.shared.lock().open);
        for (client, server) in open.into_values() {
            close(&client);
            server.as_ref().map(close);
        }
    }

    /// How often the present fault has struck.
    pub fn affected(&self) -> u64 {
        self.shared.lock().affected
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.set(Fault::Pass);
        self.cut();
        // Accepting ends with the next connection.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// What happens to bytes on their way from one side to the other; whether a request is under way is remembered.
type Step = fn(&Shared, &[u8], &mut TcpStream, &mut TcpStream, &AtomicBool) -> std::io::Result<()>;

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn accept(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            let mut state = self.lock();
            if state.ended {
                return;
            }
            let Ok(client) = client else { continue };
            state.accepted += 1;
            let number = state.accepted;
            match state.fault {
                Fault::Refuse => {
                    state.affected += 1;
                    close(&client);
                }
                Fault::Mute => {
                    state.affected += 1;
                    state.open.insert(number, (client, None));
                }
                _ => {
                    let Ok(server) = TcpStream::connect(state.upstream) else { continue };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let copy = |stream: &TcpStream| stream.try_clone().unwrap();
                    state.open.insert(number, (copy(&client), Some(copy(&server))));
                    let (requests, replies) = (self.clone(), self.clone());
                    let (from, to) = (copy(&client), copy(&server));
                    let asked = Arc::new(AtomicBool::new(false));
                    let asking = asked.clone();
                    std::thread::spawn(move || {
                        requests.pump(number, from, to, &asking, Shared::request);
                    });
                    std::thread::spawn(move || {
                        replies.pump(number, server, client, &asked, Shared::reply);
                    });
                }
            }
        }
    }

    /// Carries bytes one way until one side ends, or the fault does.
    fn pump(
        &self,
        number: usize,
        mut from: TcpStream,
        mut to: TcpStream,
        asked: &AtomicBool,
        step: Step,
    ) {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if step(self, &bytes[..count], &mut from, &mut to, asked).is_err() {
                break;
            }
        }
        close(&from);
        close(&to);
        self.lock().open.remove(&number);
    }

    /// The present fault, counted where it is one that strikes here.
    fn strike(&self, here: fn(&Fault) -> bool) -> Fault {
        let mut state = self.lock();
        let fault = state.fault.clone();
        if let Fault::CutAtRandom(one_in) = fault {
            // xorshift: the same cuts in every run of the same requests.
            state.random ^= state.random << 13;
            state.random ^= state.random >> 7;
            state.random ^= state.random << 17;
            if !state.random.is_multiple_of(u64::from(one_in)) {
                return Fault::Pass;
            }
        }
        if here(&fault) {
            state.affected += 1;
        }
        fault
    }

    fn request(
        &self,
        bytes: &[u8],
        client: &mut TcpStream,
        server: &mut TcpStream,
        asked: &AtomicBool,
    ) -> std::io::Result<()> {
        asked.store(true, Ordering::SeqCst);
        let at_the_request = |fault: &Fault| {
            matches!(fault, Fault::CutBefore | Fault::CutAtRandom(_) | Fault::Answer(_))
        };
        match self.strike(at_the_request) {
            Fault::CutBefore => Err(ErrorKind::ConnectionReset.into()),
            Fault::CutAtRandom(_) => {
                server.write_all(&bytes[..bytes.len() / 2])?;
                Err(ErrorKind::ConnectionReset.into())
            }
            Fault::Answer(line) => (0..commands(bytes))
                .try_for_each(|_| client.write_all(format!("{line}\r\n").as_bytes())),
            _ => server.write_all(bytes),
        }
    }

    fn reply(
        &self,
        bytes: &[u8],
        _server: &mut TcpStream,
        client: &mut TcpStream,
        asked: &AtomicBool,
    ) -> std::io::Result<()> {
        let at_the_reply = |fault: &Fault| {
            !matches!(fault, Fault::Pass | Fault::CutBefore | Fault::Refuse | Fault::Answer(_))
        };
        match self.strike(at_the_reply) {
            Fault::Delay(time) => {
                // The delay is the fault; nothing waits for it to be over.
                std::thread::sleep(time);
                client.write_all(bytes)
            }
            Fault::Stall => {
                let held = |state: &mut State| state.fault == Fault::Stall;
                drop(self.changed.wait_while(self.lock(), held));
                client.write_all(bytes)
            }
            Fault::Trickle(pause) => bytes.iter().try_for_each(|byte| {
                std::thread::sleep(pause);
                client.write_all(&[*byte])
            }),
            Fault::CutAtRandom(_) => {
                client.write_all(&bytes[..bytes.len() / 2])?;
                Err(ErrorKind::ConnectionReset.into())
            }
            Fault::CutAfter => Err(ErrorKind::ConnectionReset.into()),
            // Once for a request, in however many pieces the server replies.
            Fault::Garbage(garbage) if asked.swap(false, Ordering::SeqCst) => {
                client.write_all(garbage)
            }
            Fault::Garbage(_) => Ok(()),
            Fault::Mute => Ok(()),
            _ => client.write_all(bytes),
        }
    }
}

/// How many commands begin in these bytes. Values of the tests hold nothing that looks like one.
fn commands(bytes: &[u8]) -> usize {
    let starts = bytes.windows(2).enumerate().filter(|(at, pair)| {
        let begins = *at == 0 || bytes[..*at].ends_with(b"\r\n");
        begins && pair[0] == b'*' && pair[1].is_ascii_digit()
    });
    starts.count()
}

fn close(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Both);
}
