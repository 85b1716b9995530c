//! Every order in which an end of all sessions, a login and a move can meet on a real Redis, one round trip after another,
//! with a crash of each of them behind each of its round trips.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::redis::end_of;
use crate::session::store::{EndDevices, LogIn, OldId};

/// A redis-server of this test's own.
pub(super) struct Server {
    process: Child,
    folder: PathBuf,
    connection: UnixStream,
}

impl Server {
    pub(super) fn start(name: &str) -> Server {
        let folder = std::env::temp_dir().join(format!("bs-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("socket");
        let program = std::env::var_os("BOTTLE_SESSION_REDIS_SERVER");
        let process = Command::new(program.unwrap_or_else(|| "redis-server".into()))
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .stdout(Stdio::null())
            .spawn()
            .expect("tests/run.sh installs redis-server");
        let connection = loop {
            match UnixStream::connect(&socket) {
                Ok(connection) => break connection,
                Err(_) => std::thread::yield_now(),
            }
        };
        Server { process, folder, connection }
    }

    /// Carries out one request and returns the bytes of its replies.
    fn run(&mut self, bytes: &[u8], replies: usize) -> Vec<u8> {
        self.connection.write_all(bytes).unwrap();
        let (mut received, mut chunk) = (Vec::new(), [0; 4096]);
        loop {
            let (mut end, mut whole) = (0, 0);
            while let Ok(Some(more)) = end_of(&received[end..]) {
                (end, whole) = (end + more, whole + 1);
            }
            if whole == replies {
                return received;
            }
            let read = self.connection.read(&mut chunk).unwrap();
            assert_ne!(read, 0, "the server goes on");
            received.extend_from_slice(&chunk[..read]);
        }
    }

    pub(super) fn empty(&mut self) {
        self.run(b"FLUSHALL\r\n", 1);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Has three take their steps in this order, until one of them crashes after so many of its own; whoever has not comes to an
/// end. Says who has.
pub(super) fn interleave(
    actors: [&mut dyn Underway; 3],
    (turns, crash): (&[usize], Option<(usize, usize)>),
    server: &mut Server,
) -> [bool; 3] {
    let (mut taken, mut over) = ([0; 3], [false; 3]);
    let rest = [0, 1, 2].into_iter().flat_map(|who| [who; 12]);
    for who in turns.iter().copied().chain(rest) {
        let has_crashed =
            crash.is_some_and(|(crashed, after)| crashed == who && taken[who] >= after);
        if over[who] || has_crashed {
            continue;
        }
        taken[who] += 1;
        over[who] = actors[who].step(server);
    }
    over
}

/// What is under way.
pub(super) trait Underway {
    /// One round trip; says whether it is over.
    fn step(&mut self, server: &mut Server) -> bool;
}

impl<S: Step> Underway for Steps<S> {
    fn step(&mut self, server: &mut Server) -> bool {
        if self.is_over() {
            return true;
        }
        // The server's clock: a real one.
        let now = record::milliseconds_since_1970(SystemTime::now());
        let sent = Sent::by(self, now, true);
        let replies = server.run(&sent.bytes, sent.replies);
        assert_ne!(answer(self, &replies, sent.replies, now), Progress::Desync);
        self.is_over()
    }
}

pub(super) fn finish<S: Step>(mut steps: Steps<S>, server: &mut Server) -> S::Outcome {
    while !steps.step(server) {}
    steps.into_outcomes().next().unwrap()
}

pub(super) struct Case<'a> {
    pub(super) server: &'a mut Server,
    pub(super) settings: Arc<Settings>,
}

impl Case<'_> {
    pub(super) fn save(&self, save: &Save<'_>) -> Steps<IndexedSave> {
        Steps::new([IndexedSave::new(&self.settings, save)])
    }

    pub(super) fn log_in(&self, id: &SessionId) -> Steps<IndexedSave> {
        let login = Some(LogIn::new("ada"));
        self.save(&Save { login, ..Save::new(id, Action::Create, &Changes::default(), IDLE) })
    }

    pub(super) fn moves(
        &self,
        from: &SessionId,
        to: &SessionId,
        old_id: OldId<'_>,
    ) -> Steps<IndexedSave> {
        let (action, none) = (Action::Rotate { to }, Changes::default());
        self.save(&Save { user: Some("ada"), old_id, ..Save::new(from, action, &none, IDLE) })
    }

    fn end_all(&self) -> Steps<EndStep> {
        Steps::new([EndStep::new(&self.settings, "ada", EndDevices::All)])
    }

    pub(super) fn lives(&mut self, id: &SessionId) -> bool {
        let load = Load { id, lifetimes: IDLE };
        let steps = Steps::new([LoadStep::new(&self.settings, &load)]);
        finish(steps, self.server).unwrap().session().is_some()
    }

    pub(super) fn listed(&mut self) -> usize {
        finish(Steps::new([ListStep::new(&self.settings, "ada", None)]), self.server).unwrap().len()
    }

    /// One order: whose turn it is, again and again. A turn of who has crashed, or is over, is none.
    fn run(&mut self, turns: &[usize], crash: Option<(usize, usize)>) {
        let history = format!("turns {turns:?}, crash {crash:?}, {:?}", self.settings.in_cluster);
        self.server.empty();
        let [first, moved, second] = ["A", "B", "C"].map(id);
        assert_eq!(finish(self.log_in(&first), self.server).unwrap(), Saved::Stored);
        let (mut end, mut moving, mut login) =
            (self.end_all(), self.moves(&first, &moved, OldId::Linked), self.log_in(&second));
        let over = interleave([&mut end, &mut moving, &mut login], (turns, crash), self.server);
        if !over[0] {
            // It has crashed, and is called once more.
            finish(self.end_all(), self.server).unwrap();
        }
        for id in [&first, &moved] {
            assert!(!self.lives(id), "{id:?} lives: {history}");
        }
        // Whoever holds the first id makes no new session.
        let load = Load { id: &first, lifetimes: IDLE };
        let found = finish(Steps::new([LoadStep::new(&self.settings, &load)]), self.server);
        assert_eq!(found.unwrap(), Loaded::Ended, "{history}");
        // A login under way failed, or is one that came later: it is in the index.
        let lives = self.lives(&second);
        match over[2].then(|| login.into_outcomes().next().unwrap()) {
            Some(Ok(saved)) => {
                assert_eq!(saved, Saved::Stored, "{history}");
                assert!(!lives || self.listed() == 1, "{history}");
            }
            Some(Err(error)) => assert!(!lives, "{error}: {history}"),
            // It has crashed, and nobody has its id.
            None => {}
        }
        if over[2] {
            finish(self.end_all(), self.server).unwrap();
            assert!(!self.lives(&second) && self.listed() == 0, "{history}");
        }
        if let Some(Ok(saved)) = over[1].then(|| moving.into_outcomes().next().unwrap()) {
            assert!([Saved::Stored, Saved::Gone].contains(&saved), "{history}");
        }
    }
}

/// All orders of so many turns each.
pub(super) fn orders(
    left: &mut [usize; 3],
    order: &mut Vec<usize>,
    found: &mut impl FnMut(&[usize]),
) {
    if left.iter().all(|left| *left == 0) {
        return found(order);
    }
    for who in 0..3 {
        if left[who] > 0 {
            left[who] -= 1;
            order.push(who);
            orders(left, order, found);
            order.pop();
            left[who] += 1;
        }
    }
}

fn every_order(name: &str, in_cluster: bool, turns: [usize; 3], crashes: bool) -> usize {
    let mut server = Server::start(name);
    let settings = Arc::new(Settings { in_cluster, ..(*settings()).clone() });
    let (mut case, mut count) = (Case { server: &mut server, settings }, 0);
    orders(&mut turns.clone(), &mut Vec::new(), &mut |order| {
        case.run(order, None);
        count += 1;
        for who in (0..3).filter(|who| crashes && turns[*who] > 0) {
            for after in 0..turns[who] {
                case.run(order, Some((who, after)));
                count += 1;
            }
        }
    });
    count
}

#[test]
fn no_session_outlives_an_end_of_all_whatever_meets_it_in_a_cluster() {
    // An end has two rounds of removals of up to three sessions, a login and a move three steps.
    assert!(every_order("endings-c", true, [5, 3, 3], false) > 9_000);
}

#[test]
fn no_session_outlives_an_end_of_all_whatever_meets_it_on_one_server() {
    assert!(every_order("endings-s", false, [3, 3, 3], false) > 1_600);
}

#[test]
fn no_session_outlives_an_end_of_all_whoever_crashes() {
    for (turns, in_cluster) in
        [([6, 3, 0], true), ([6, 0, 3], true), ([3, 3, 0], false), ([3, 0, 3], false)]
    {
        let name = format!("endings-{turns:?}-{in_cluster}").replace([' ', ',', '[', ']'], "");
        assert!(every_order(&name, in_cluster, turns, true) > 100);
    }
}
