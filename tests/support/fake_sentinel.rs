//! A sentinel that says what a test wants.

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};

/// Answers questions and lets clients subscribe, as far as the crate asks. It is gone when this is dropped.
pub struct FakeSentinel {
    pub port: u16,
    shared: Arc<Mutex<State>>,
}

/// What it says.
pub struct State {
    pub master: u16,
    pub epoch: u64,
    pub leads_failover: bool,
    /// It takes connections and says nothing.
    pub is_mute: bool,
    /// It closes connections as they come.
    pub is_gone: bool,
    /// How many questions for the master it has answered.
    pub asked: usize,
    /// Each with the number of channels that it has subscribed to.
    clients: Vec<(TcpStream, usize)>,
}

impl FakeSentinel {
    /// Names the server on this port as the master.
    pub fn naming(master: u16) -> FakeSentinel {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Mutex::new(State {
            master,
            epoch: 0,
            leads_failover: false,
            is_mute: false,
            is_gone: false,
            asked: 0,
            clients: Vec::new(),
        }));
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let mut state = lock(&accepting);
                if state.is_gone {
                    let _ = stream.shutdown(Shutdown::Both);
                    continue;
                }
                stream.set_nodelay(true).unwrap();
                let number = state.clients.len();
                state.clients.push((stream.try_clone().unwrap(), 0));
                drop(state);
                let shared = accepting.clone();
                std::thread::spawn(move || serve(&shared, stream, number));
            }
        });
        FakeSentinel { port, shared }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn says(&self) -> MutexGuard<'_, State> {
        lock(&self.shared)
    }

    /// Closes all connections and takes no more, until `is_gone` is false again.
    pub fn go(&self) {
        let mut state = self.says();
        state.is_gone = true;
        for (client, channels) in &mut state.clients {
            *channels = 0;
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// How many clients listen.
    pub fn listeners(&self) -> usize {
        self.says().clients.iter().filter(|(_, channels)| *channels > 0).count()
    }

    /// Tells all who listen.
    pub fn publish(&self, channel: &str, text: &str) {
        let mut state = self.says();
        let message = array(&["message", channel, text]);
        for (client, _) in state.clients.iter_mut().filter(|(_, channels)| *channels > 0) {
            let _ = client.write_all(message.as_bytes());
        }
    }

    /// Says that it is about to replace the master on this port.
    pub fn begin_failover(&self, of: u16) {
        self.says().leads_failover = true;
        self.publish("+try-failover", &format!("master sessions 127.0.0.1 {of}"));
    }

    pub fn abort_failover(&self, of: u16) {
        self.says().leads_failover = false;
        let text = format!("master sessions 127.0.0.1 {of}");
        self.publish("-failover-abort-no-good-slave", &text);
    }

    pub fn switch(&self, from: u16, to: u16) {
        {
            let mut state = self.says();
            (state.master, state.leads_failover) = (to, false);
            state.epoch += 1;
        }
        let text = format!("sessions 127.0.0.1 {from} 127.0.0.1 {to}");
        self.publish("+switch-master", &text);
    }
}

impl Drop for FakeSentinel {
    fn drop(&mut self) {
        self.go();
    }
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn serve(shared: &Mutex<State>, mut stream: TcpStream, number: usize) {
    let mut parser = redis::Parser::new();
    // From UNSUBSCRIBE to SUBSCRIBE nobody else gets a turn: a sentinel carries out in one go what came at once.
    let (mut in_one_go, mut begun) = (None, false);
    while let Ok(command) = parser.parse_value(&mut stream) {
        let words: Vec<String> = redis::from_redis_value(command).unwrap();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut state = in_one_go.take().unwrap_or_else(|| lock(shared));
        if state.is_mute {
            continue;
        }
        let subscribed = state.clients[number].1;
        let port = state.master.to_string();
        let answer = match words[..] {
            ["SUBSCRIBE", ref channels @ ..] => {
                state.clients[number].1 = channels.len();
                channels.iter().map(|channel| confirmation("subscribe", channel)).collect()
            }
            ["UNSUBSCRIBE"] => {
                state.clients[number].1 = 0;
                (0..subscribed).map(|_| confirmation("unsubscribe", "channel")).collect()
            }
            _ if subscribed > 0 => {
                "-ERR Can't execute this: only (P|S)SUBSCRIBE are allowed in this context\r\n"
                    .to_owned()
            }
            ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "sessions"] => {
                state.asked += 1;
                array(&["127.0.0.1", &port])
            }
            ["SENTINEL", "MASTER", "sessions"] => {
                let flags = match state.leads_failover {
                    true => "master,failover_in_progress",
                    false => "master",
                };
                let epoch = state.epoch.to_string();
                array(&["ip", "127.0.0.1", "port", &port, "flags", flags, "config-epoch", &epoch])
            }
            ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", _] => "*-1\r\n".to_owned(),
            ["CLIENT", ..] => "+OK\r\n".to_owned(),
            _ => "-ERR unknown command\r\n".to_owned(),
        };
        let client = &mut state.clients[number].0;
        if client.write_all(answer.as_bytes()).is_err() {
            break;
        }
        if subscribed > 0 || begun {
            begun = words[0] != "SUBSCRIBE";
            in_one_go = begun.then_some(state);
        }
    }
    drop(in_one_go);
    lock(shared).clients[number].1 = 0;
}

fn array(words: &[&str]) -> String {
    let words = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len()));
    format!("*{}\r\n{}", words.len(), words.collect::<String>())
}

fn confirmation(kind: &str, channel: &str) -> String {
    format!("*3\r\n${}\r\n{kind}\r\n${}\r\n{channel}\r\n:1\r\n", kind.len(), channel.len())
}
