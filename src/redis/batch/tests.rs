use super::*;
use crate::redis::scripted_server::Ask;

fn batch(operations: &mut [Ask], options: BatchOptions) -> Batch {
    let mut batch = Batch::new(options);
    for operation in operations {
        batch.push(operation, SystemTime::UNIX_EPOCH, options.one_key);
    }
    batch.finish(None, Instant::now(), Duration::from_millis(500));
    batch
}

fn nonce(batch: &Batch) -> String {
    String::from_utf8(batch.nonce.as_bytes().to_vec()).unwrap()
}

const TIME: &str = "*2\r\n$10\r\n1764421000\r\n$6\r\n250000\r\n";

/// What becomes of these bytes; `NONCE` in them stands for the batch's.
fn received(replies: &str, asking: bool) -> (String, Vec<String>) {
    let mut operations = [Ask::new("HGETALL a", true), Ask::new("GET b", false)];
    let mut batch = batch(&mut operations, BatchOptions { one_key: asking, asking, replicas: 0 });
    let bytes = replies.replace("NONCE", &nonce(&batch));
    // However the bytes come in, the result is the same.
    let now = Instant::now();
    for end in 0..bytes.len() {
        match batch.receive(&bytes.as_bytes()[..end], usize::MAX, now) {
            Ok(Received::Incomplete) => {}
            Ok(_) => return ("complete too soon".to_owned(), Vec::new()),
            Err(broken) => return (format!("{broken:?}"), Vec::new()),
        }
    }
    match batch.receive(bytes.as_bytes(), usize::MAX, now) {
        Err(broken) => (format!("{broken:?}"), Vec::new()),
        Ok(Received::Incomplete) => ("incomplete".to_owned(), Vec::new()),
        Ok(Received::Refused(error)) => (error.to_string(), Vec::new()),
        Ok(Received::InStep(clock)) => {
            let clock = clock.expect("it was asked for");
            let since = clock.now(now).duration_since(SystemTime::UNIX_EPOCH).unwrap();
            assert_eq!(since, Duration::from_millis(1_764_421_000_250));
            for (number, operation) in operations.iter_mut().enumerate() {
                deliver(operation, batch.answer(number, bytes.as_bytes(), clock.now(now)));
            }
            let replies = operations.map(|operation| operation.reply.unwrap().unwrap());
            (format!("in step, {} left", bytes.len() - batch.received_len()), replies.into())
        }
    }
}

#[test]
fn no_reply_is_believed_before_the_nonce_is_in_its_place() {
    let echo = "$32\r\nNONCE\r\n";
    let other = "$32\r\n00000000000000000000000000000000\r\n";
    let noauth = "-NOAUTH Authentication required.\r\n";
    let good = ["*0\r\n".to_owned(), "$-1\r\n".to_owned()];
    let table: [(String, &str, &[String]); 8] = [
        (format!("*0\r\n$-1\r\n{TIME}{echo}"), "in step, 0 left", &good),
        // One reply of somebody before us.
        (format!("$1\r\nx\r\n*0\r\n$-1\r\n{TIME}{echo}"), "Protocol", &[]),
        // One reply too few.
        (format!("*0\r\n{TIME}{echo}"), "incomplete", &[]),
        // The end of another pipeline.
        (format!("*0\r\n$-1\r\n{TIME}{other}"), "Protocol", &[]),
        // Inside a transaction that somebody left open.
        ("+QUEUED\r\n".repeat(4), "Protocol", &[]),
        (noauth.repeat(4), "Redis: NOAUTH Authentication required.", &[]),
        (
            format!("*0\r\n$-1\r\n-NOPERM no permissions to run the 'time' command\r\n{echo}"),
            "Redis: NOPERM no permissions to run the 'time' command",
            &[],
        ),
        ("HTTP/1.1 400 Bad Request\r\n\r\n".to_owned(), "Protocol", &[]),
    ];
    for (replies, expected, answers) in table {
        let (outcome, got) = received(&replies, false);
        assert!(outcome.starts_with(expected), "{replies:?}: {outcome}");
        assert_eq!(got, answers, "{replies:?}");
    }
    let asked = format!("+OK\r\n*0\r\n+OK\r\n$-1\r\n{TIME}{echo}");
    assert_eq!(received(&asked, true), ("in step, 0 left".to_owned(), good.to_vec()));
}

#[test]
fn each_pipeline_has_a_nonce_of_its_own() {
    let one = batch(&mut [], BatchOptions::default());
    let another = batch(&mut [], BatchOptions::default());
    assert_ne!(nonce(&one), nonce(&another));
}

#[test]
fn the_time_is_asked_for_once_a_second() {
    let told = Instant::now();
    let clock = Some(RemoteClock::new(SystemTime::UNIX_EPOCH, told));
    for (clock, later, asks) in [(None, 0, true), (clock, 999, false), (clock, 1000, true)] {
        let mut batch = Batch::new(BatchOptions::default());
        batch.push(&mut Ask::new("GET a", true), SystemTime::UNIX_EPOCH, false);
        let now = told + Duration::from_millis(later);
        batch.finish(clock, now, Duration::from_millis(500));
        let time = if asks { TIME } else { "" };
        let replies = format!("$-1\r\n{time}$32\r\n{}\r\n", nonce(&batch));
        let received = batch.receive(replies.as_bytes(), usize::MAX, now);
        assert!(matches!(received, Ok(Received::InStep(clock)) if clock.is_some() == asks));
    }
}

#[test]
fn what_is_written_counts_only_if_enough_replicas_have_it() {
    let mut operations = [Ask::new("HSET a", false), Ask::new("HSET b", false)];
    for (reply, shortfall) in [
        (":2\r\n", None),
        (":3\r\n", None),
        (":1\r\n", Some(Ok(1))),
        ("-NOPERM no\r\n", Some(Err("Redis: NOPERM no".to_owned()))),
    ] {
        let options = BatchOptions { replicas: 2, ..BatchOptions::default() };
        let mut batch = batch(&mut operations, options);
        let sent = String::from_utf8_lossy(&batch.bytes).into_owned();
        assert!(sent.contains("*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$3\r\n350\r\n"), "{sent}");
        let replies = format!(":1\r\n:1\r\n{reply}{TIME}$32\r\n{}\r\n", nonce(&batch));
        for end in 0..replies.len() {
            let received = batch.receive(&replies.as_bytes()[..end], usize::MAX, Instant::now());
            assert!(matches!(received, Ok(Received::Incomplete)));
        }
        let received = batch.receive(replies.as_bytes(), usize::MAX, Instant::now());
        assert!(matches!(received, Ok(Received::InStep(_))));
        let got = batch.shortfall().map(|got| got.map_err(|error| error.to_string()));
        assert_eq!(got, shortfall, "{reply}");
    }
}

#[test]
fn replies_past_the_limit_are_not_read_to_their_end() {
    struct Small(Ask);
    impl Operation for Small {
        fn request(&mut self, round: &mut Round<'_>) {
            self.0.request(round);
            round.at_most(10);
        }
        fn answer(&mut self, answer: Answer<'_>) -> Progress {
            self.0.answer(answer)
        }
        fn fail(&mut self, error: Error) {
            self.0.fail(error);
        }
    }
    let mut batch = Batch::new(BatchOptions::default());
    batch.push(&mut Small(Ask::new("GET a", true)), SystemTime::UNIX_EPOCH, false);
    batch.finish(None, Instant::now(), Duration::from_millis(500));
    let start = format!("${}\r\n{}", 1 << 30, "x".repeat(10 + OVERHEAD));
    let broken = batch.receive(start.as_bytes(), usize::MAX, Instant::now());
    assert!(matches!(broken, Err(Broken::TooLarge(limit)) if limit == 10 + OVERHEAD));
}
