//! Every order in which a logout with an old id and the moves of its session can meet on a real Redis, one round trip after
//! another, with a crash of each of them behind each of its round trips.

use super::endings::{Case, Server, finish, interleave, orders};
use super::*;
use crate::session::store::OldId;

impl Case<'_> {
    fn logs_out(&self, id: &SessionId) -> Steps<IndexedSave> {
        let none = Changes::default();
        self.save(&Save { user: Some("ada"), ..Save::new(id, Action::Destroy, &none, IDLE) })
    }

    fn found(&mut self, id: &SessionId) -> Loaded {
        let load = Load { id, lifetimes: IDLE };
        finish(Steps::new([LoadStep::new(&self.settings, &load)]), self.server).unwrap()
    }

    /// One order: who ends A, who moves the session from A to B, and who moves it on to C.
    fn follow(&mut self, turns: &[usize], crash: Option<(usize, usize)>, old_id: OldId<'_>) {
        let in_cluster = self.settings.in_cluster;
        let history = format!("turns {turns:?}, crash {crash:?}, {old_id:?}, {in_cluster}");
        self.server.empty();
        let [a, b, c] = ["A", "B", "C"].map(id);
        assert_eq!(finish(self.log_in(&a), self.server).unwrap(), Saved::Stored);
        let mut end = self.logs_out(&a);
        let mut moving = self.moves(&a, &b, old_id);
        let mut onward = self.moves(&b, &c, OldId::Linked);
        let over = interleave([&mut end, &mut moving, &mut onward], (turns, crash), self.server);
        let ended = match over[0] {
            true => end.into_outcomes().next().unwrap().unwrap(),
            // It has crashed; the visitor tries again, and finds it done, or does it.
            false => {
                finish(self.logs_out(&a), self.server).unwrap();
                Saved::Stored
            }
        };
        let living = [&a, &b, &c].into_iter().filter(|id| self.lives(id)).count();
        match (ended, old_id) {
            // It was severed before: then it goes on where it is, once.
            (Saved::Gone, OldId::Unlinked) => assert_eq!(living, 1, "{history}"),
            (_, OldId::Unlinked) if !over[0] => assert!(living <= 1, "{history}"),
            (ended, _) => {
                assert_eq!((ended, living), (Saved::Stored, 0), "{history}");
                assert_eq!(self.listed(), 0, "{history}");
            }
        }
        // Whoever holds the first id makes no new session, and is never given another's.
        match self.found(&a) {
            Loaded::Ended => {}
            Loaded::InGrace(text) => assert_eq!(old_id, OldId::InGrace(&text), "{history}"),
            other => panic!("{history}: {other:?}"),
        }
        assert_eq!(finish(self.logs_out(&a), self.server).unwrap(), Saved::Gone, "{history}");
    }
}

fn every_order(name: &str, in_cluster: bool, old_id: OldId<'_>, crashes: bool) -> usize {
    let mut server = Server::start(name);
    let settings = Arc::new(Settings { in_cluster, ..(*settings()).clone() });
    let (mut case, mut count) = (Case { server: &mut server, settings }, 0);
    let turns = if crashes { [3, 3, 0] } else { [3, 3, 2] };
    orders(&mut turns.clone(), &mut Vec::new(), &mut |order| {
        case.follow(order, None, old_id);
        count += 1;
        for (who, after) in (0..2).flat_map(|who| (0..4).map(move |after| (who, after))) {
            if crashes {
                case.follow(order, Some((who, after)), old_id);
                count += 1;
            }
        }
    });
    count
}

#[test]
fn who_ends_an_old_id_ends_the_session_wherever_it_is_moving() {
    for (number, old_id) in
        [OldId::Linked, OldId::InGrace("left"), OldId::Unlinked].iter().enumerate()
    {
        for in_cluster in [false, true] {
            let name = format!("follows-{number}-{in_cluster}");
            assert!(every_order(&name, in_cluster, *old_id, false) > 500);
            assert!(every_order(&name, in_cluster, *old_id, true) > 100);
        }
    }
}
