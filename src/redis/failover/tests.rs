use super::*;

fn node(port: u16) -> Node {
    ("10.0.0.1".to_owned(), port)
}

/// A failover from 1 to 2, as seen over so many sentinels, by seconds since the start.
struct Scene {
    failover: Failover,
    start: Instant,
}

impl Scene {
    fn of(sentinels: usize) -> Scene {
        let mut failover = Failover::new(sentinels);
        let start = Instant::now();
        assert_eq!(failover.adopt(&node(1), start), None);
        let mut scene = Scene { failover, start };
        for number in 0..sentinels {
            assert_eq!(scene.says(0.0, number, 1, 4, false), None);
        }
        scene
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    fn hears(&mut self, seconds: f64, number: usize, announced: Announced) -> Option<Change> {
        self.failover.announced(number, &announced, self.at(seconds))
    }

    fn says(
        &mut self,
        seconds: f64,
        number: usize,
        master: u16,
        epoch: u64,
        leads_failover: bool,
    ) -> Option<Change> {
        let answered = Answered { master: node(master), epoch, leads_failover };
        self.failover.answered(number, Some(answered), self.at(seconds))
    }

    fn tick(&mut self, seconds: f64) -> Option<Change> {
        self.failover.tick(self.at(seconds))
    }

    fn candidates(&self, seconds: f64) -> Vec<u16> {
        let nodes = self.failover.candidates(self.at(seconds));
        nodes.into_iter().map(|(_, port)| port).collect()
    }
}

fn begins() -> Announced {
    Announced::Failover(node(1))
}

fn switches() -> Announced {
    Announced::Switched(node(1), node(2))
}

#[test]
fn a_planned_failover_holds_writes_until_the_switch() {
    let mut scene = Scene::of(3);
    assert_eq!(scene.hears(1.0, 0, begins()), Some(Change::Held));
    assert_eq!(scene.hears(1.1, 0, begins()), None);
    // The others know nothing of it, and are many.
    for second in [1.5, 2.5, 3.5, 9.5, 14.0] {
        assert_eq!(scene.says(second, 0, 1, 4, true), None);
        assert_eq!(scene.says(second, 1, 1, 4, false), None);
        assert_eq!(scene.says(second, 2, 1, 4, false), None);
        assert_eq!(scene.tick(second + 0.5), None, "at {second}");
    }
    assert_eq!(scene.hears(15.0, 0, switches()), Some(Change::Switched(node(2))));
    assert!(!scene.failover.is_held());
    // Who still names the old one is not followed back.
    assert_eq!(scene.says(15.1, 1, 1, 4, false), None);
    assert_eq!(scene.says(15.1, 2, 1, 4, false), None);
    assert_eq!(scene.candidates(15.2), [2]);
    assert_eq!(scene.says(15.3, 0, 2, 5, false), None);
    // Late words of the same failover.
    assert_eq!(scene.hears(15.4, 1, begins()), None);
    assert_eq!(scene.hears(15.5, 1, switches()), None);
    assert_eq!(scene.says(15.6, 1, 2, 5, false), None);
    assert_eq!(scene.says(15.6, 2, 2, 5, false), None);
    assert_eq!(scene.candidates(15.7), [2]);
}

#[test]
fn a_failover_ends_where_its_leader_says_so() {
    let mut scene = Scene::of(3);
    assert_eq!(scene.hears(1.0, 0, begins()), Some(Change::Held));
    let aborts = Announced::Aborted(node(1));
    assert_eq!(scene.hears(2.0, 1, aborts.clone()), None, "another one's");
    assert_eq!(scene.hears(2.0, 0, aborts), Some(Change::Released));
    // By its answer, which tells of a failover as well.
    assert_eq!(scene.says(3.0, 0, 1, 4, true), Some(Change::Held));
    assert_eq!(scene.says(4.0, 0, 1, 4, false), Some(Change::Released));
}

#[test]
fn a_majority_ends_a_failover_whose_leader_has_vanished_once_it_must_know() {
    let mut scene = Scene::of(3);
    assert_eq!(scene.hears(1.0, 0, begins()), Some(Change::Held));
    scene.failover.lost(0);
    let mut released = None;
    for second in 2..15 {
        let second = f64::from(second);
        scene.says(second, 1, 1, 4, false);
        scene.says(second, 2, 1, 4, false);
        if let Some(change) = scene.tick(second + 0.1) {
            released.get_or_insert((second, change));
        }
    }
    assert_eq!(released, Some((6.0, Change::Released)));
}

#[test]
fn without_a_majority_it_ends_after_fifteen_seconds() {
    for sentinels in [1, 2] {
        let mut scene = Scene::of(sentinels);
        assert_eq!(scene.hears(1.0, 0, begins()), Some(Change::Held));
        scene.failover.lost(0);
        for second in 2..16 {
            let second = f64::from(second);
            if sentinels == 2 {
                assert_eq!(scene.says(second, 1, 1, 4, false), None);
            }
            assert_eq!(scene.tick(second), None, "at {second}");
        }
        assert_eq!(scene.tick(16.0), Some(Change::GivenUp));
    }
}

#[test]
fn a_switch_that_was_not_announced_holds_writes_until_the_majority_has_decided() {
    let mut scene = Scene::of(3);
    assert_eq!(scene.says(1.0, 0, 2, 5, false), Some(Change::Held));
    assert_eq!(scene.candidates(1.1), [2], "the newest epoch");
    assert_eq!(scene.says(2.0, 1, 2, 5, false), Some(Change::Switched(node(2))));
    // Whoever has connected to it knows.
    let mut scene = Scene::of(3);
    assert_eq!(scene.says(1.0, 0, 2, 5, false), Some(Change::Held));
    let adopted = scene.failover.adopt(&node(2), scene.at(1.1));
    assert_eq!(adopted, Some(Change::Switched(node(2))));
    assert_eq!(scene.says(1.2, 1, 1, 4, false), None);
    assert_eq!(scene.says(1.2, 2, 1, 4, false), None);
}

#[test]
fn one_that_is_wrong_is_outvoted() {
    // Of the same epoch, and older.
    for epoch in [0, 4] {
        let mut scene = Scene::of(3);
        assert_eq!(scene.says(1.0, 0, 9, epoch, false), None);
        assert_eq!(scene.candidates(1.1)[0], 1);
        // It announces its own switch.
        let wrong = Announced::Switched(node(1), node(9));
        assert_eq!(scene.hears(2.0, 0, wrong), Some(Change::Switched(node(9))));
        assert_eq!(scene.says(2.1, 0, 9, epoch, false), Some(Change::Switched(node(1))));
    }
    // Of a newer one, which nobody follows.
    let mut scene = Scene::of(3);
    assert_eq!(scene.says(1.0, 0, 9, 7, false), Some(Change::Held));
    for second in [2.0, 3.0, 4.0, 5.0] {
        assert_eq!(scene.says(second, 0, 9, 7, false), None);
        assert_eq!(scene.says(second, 1, 1, 4, false), None);
        assert_eq!(scene.says(second, 2, 1, 4, false), None);
        assert_eq!(scene.tick(second), None);
    }
    assert_eq!(scene.tick(6.0), Some(Change::Released));
    assert_eq!(scene.candidates(6.1), [1, 9]);
    assert_eq!(scene.says(7.0, 0, 9, 7, false), None, "once is enough");
}

#[test]
fn where_no_sentinel_is_there_the_last_master_is_still_one() {
    let mut scene = Scene::of(3);
    (0..3).for_each(|number| scene.failover.lost(number));
    assert_eq!(scene.candidates(60.0), [1]);
    assert!(Failover::new(3).candidates(Instant::now()).is_empty());
}

#[test]
fn what_concerns_another_master_concerns_nobody() {
    let mut scene = Scene::of(3);
    for of in [Announced::Failover(node(3)), Announced::Switched(node(3), node(4))] {
        assert_eq!(scene.hears(1.0, 0, of), None);
    }
    assert_eq!(scene.failover.master(), Some(&node(1)));
}
