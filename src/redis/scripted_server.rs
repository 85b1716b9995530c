//! For tests: a server that answers as a test scripts it, and an operation of one command.

use std::io::Write;
use std::net::{Shutdown, TcpListener};
use std::sync::Arc;

use crate::Error;
use crate::pipeline::operation::{Answer, Operation, Progress, Round};

/// What the server does with a command.
pub(super) enum Reaction {
    Answers(Vec<u8>),
    /// Closes the connection.
    Hangs,
    Closes,
}

pub(super) fn answers(bytes: &str) -> Reaction {
    Reaction::Answers(bytes.as_bytes().to_vec())
}

/// Serves: it tells the time, echoes, is told names, and does what `answer` says to every other command.
pub(super) fn serve(
    listener: TcpListener,
    answer: impl Fn(&[String]) -> Reaction + Send + Sync + 'static,
) {
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), answer) = (stream, answer.clone()) else { return };
            std::thread::spawn(move || {
                let mut parser = ::redis::Parser::new();
                while let Ok(command) = parser.parse_value(&mut stream) {
                    let words: Vec<String> = ::redis::from_redis_value(command).unwrap();
                    let does = match words[0].as_str() {
                        "TIME" => answers("*2\r\n$10\r\n1764421000\r\n$6\r\n250000\r\n"),
                        "ECHO" => answers(&format!("${}\r\n{}\r\n", words[1].len(), words[1])),
                        "CLIENT" => answers("+OK\r\n"),
                        _ => answer(&words),
                    };
                    match does {
                        Reaction::Answers(bytes) => {
                            if stream.write_all(&bytes).is_err() {
                                return;
                            }
                        }
                        Reaction::Hangs => std::thread::park(),
                        Reaction::Closes => {
                            let _ = stream.shutdown(Shutdown::Both);
                            return;
                        }
                    }
                }
            });
        }
    });
}

/// Asks one command, and keeps what comes of it.
pub(super) struct Ask {
    words: Vec<String>,
    repeatable: bool,
    pub(super) reply: Option<Result<String, Error>>,
}

impl Ask {
    pub(super) fn new(words: &str, repeatable: bool) -> Ask {
        let words = words.split(' ').map(str::to_owned).collect();
        Ask { words, repeatable, reply: None }
    }
}

impl Operation for Ask {
    fn request(&mut self, round: &mut Round<'_>) {
        if self.repeatable {
            round.repeatable();
        }
        let words: Vec<&[u8]> = self.words.iter().map(|word| word.as_bytes()).collect();
        round.command(&words);
        round.for_key(b"key");
    }

    fn answer(&mut self, answer: Answer<'_>) -> Progress {
        self.reply = Some(Ok(String::from_utf8_lossy(answer.bytes).into_owned()));
        Progress::Done
    }

    fn fail(&mut self, error: Error) {
        self.reply = Some(Err(error));
    }
}
