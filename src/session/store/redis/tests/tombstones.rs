//! Tombstones: how they are written, read and followed.

use super::*;
use crate::session::store::OldId;

#[test]
fn what_was_left_is_read_by_the_times_that_it_holds() {
    let time = |after: i64| text(&record::base36(NOW.saturating_add_signed(after)));
    let (past, later) = (time(0), time(1));
    let left = |kind: &str, until: &str, end: &str| format!("{kind}{until}.{end}.name.a.b ключ");
    let replaced = Loaded::InGrace("a.b ключ".to_owned());
    for (left, expected) in [
        (left("e", &later, "0"), Loaded::Ended),
        (left("e", &past, "0"), Loaded::Unknown),
        (left("r", &later, "0"), Loaded::Ended),
        (left("r", &past, "0"), Loaded::Unknown),
        (left("g", &later, "0"), replaced),
        (left("g", &later, &later), Loaded::GraceEnding("a.b ключ".to_owned())),
        (
            left("g", &later, &past),
            Loaded::PastGrace { left: "a.b ключ".to_owned(), since: Duration::ZERO },
        ),
        (left("g", &past, "0"), Loaded::Unknown),
        // What somebody else has written, or a later version of the crate.
        (left("z", &later, "0"), Loaded::Unknown),
        (left("e", "", "0"), Loaded::Unknown),
        (left("e", &later, "-"), Loaded::Unknown),
        (format!("e{later}"), Loaded::Unknown),
        (String::new(), Loaded::Unknown),
    ] {
        let mut load = load(&id("A"));
        Sent::by(&mut load, NOW, false);
        // A late update has written beside it.
        let reply = array(&["\0x", &left, "\0s", "1.2", "name", "Ada"]);
        assert_eq!(answer(&mut load, reply.as_bytes(), 1, NOW), Progress::Done);
        let loaded = load.into_outcomes().next().unwrap().unwrap();
        assert_eq!(loaded, expected, "{left:?}");
    }
}

#[test]
fn what_is_written_is_what_is_read() {
    for (old_id, loaded) in [
        (OldId::Linked, Loaded::Ended),
        (OldId::Unlinked, Loaded::Ended),
        (OldId::InGrace("a.b."), Loaded::InGrace("a.b.".to_owned())),
    ] {
        let written = tombstone::Tombstone::of(old_id).written(NOW + 1, b"{ab}next");
        assert_eq!(tombstone::loaded(&written, NOW), loaded);
        assert_eq!(tombstone::loaded(&written, NOW + 1), Loaded::Unknown);
    }
    assert_ne!(tombstone::mark(), tombstone::mark());
}

#[test]
fn an_end_follows_a_session_over_many_moves_and_not_for_ever() {
    let key = |name: &str| format!("bottle.session:{name}");
    for (moves, last, expected) in [
        (0, ":1\r\n", Ok(Saved::Stored)),
        (3, ":1\r\n", Ok(Saved::Stored)),
        (16, ":1\r\n", Ok(Saved::Stored)),
        (16, ":0\r\n", Ok(Saved::Gone)),
        (17, "", Err(ErrorKind::Unavailable)),
    ] {
        let mut end = save(&id("A"), Action::Destroy, &Changes::default());
        for number in 0..moves {
            let sent = Sent::by(&mut end, NOW, false);
            assert!(sent.repeatable);
            let asked = text(sent.commands()[0][3]);
            assert!(number == 0 || asked == key(&format!("name{number}")), "{asked}");
            let next = format!("name{}", number + 1);
            let reply = format!("${}\r\n{next}\r\n", next.len());
            let over = if number == 16 { Progress::Done } else { Progress::Again };
            assert_eq!(answer(&mut end, reply.as_bytes(), 1, NOW), over);
        }
        if !last.is_empty() {
            Sent::by(&mut end, NOW, false);
            assert_eq!(answer(&mut end, last.as_bytes(), 1, NOW), Progress::Done);
        }
        let outcome = end.into_outcomes().next().unwrap();
        assert_eq!(outcome.map_err(|error| error.kind()), expected, "{moves} moves");
    }
}
