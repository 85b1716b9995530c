//! The page: <https://prometheus.io/docs/instrumenting/exposition_formats/>, version 0.0.4.

use std::fmt::{self, Display, Write};
use std::sync::atomic::Ordering;

use super::{METHODS, MetricsPlugin};
use crate::lock::read;
use crate::pipeline::histogram::Histogram;
use crate::redis::BreakerState;

impl MetricsPlugin {
    /// What the page says, without its head.
    pub fn text(&self) -> String {
        let mut page = Page(String::with_capacity(8 * 1024));
        self.requests(&mut page);
        self.session_events(&mut page);
        self.redis_pools(&mut page);
        self.memory_stores(&mut page);
        #[cfg(feature = "sqlite")]
        self.file_stores(&mut page);
        for gauge in &self.gauges {
            page.family(&gauge.name, "gauge", &gauge.help);
            page.sample(&gauge.name, &[], (gauge.value)());
        }
        page.0
    }

    fn requests(&self, page: &mut Page) {
        let routes = read(&self.requests.routes);
        let mut routes: Vec<_> = routes.iter().collect();
        routes.sort_by_key(|(rule, _)| *rule);
        let name = "http_requests_total";
        page.family(name, "counter", "Requests answered.");
        for (rule, route) in &routes {
            let answers = read(&route.answers);
            for (method, status, count) in answers.iter() {
                let status = status.to_string();
                let labels = [("method", METHODS[*method]), ("route", rule), ("status", &status)];
                page.sample(name, &labels, count.load(Ordering::Relaxed));
            }
        }
        let name = "http_request_duration_seconds";
        page.family(name, "histogram", "From the request to its answer.");
        for (rule, route) in &routes {
            for (method, durations) in METHODS.iter().zip(&route.durations) {
                if let Some(durations) = durations.get() {
                    page.histogram(name, &[("method", method), ("route", rule)], durations);
                }
            }
        }
        let name = "http_stage_duration_seconds";
        page.family(name, "histogram", "Stages of requests.");
        let requests = &self.requests;
        for (stage, times) in
            [("prepare", &requests.prepare), ("run", &requests.run), ("finish", &requests.finish)]
        {
            page.histogram(name, &[("stage", stage)], times);
        }
        let name = "http_requests_in_flight";
        page.family(name, "gauge", "Requests not answered yet.");
        page.sample(name, &[], requests.in_flight.load(Ordering::Relaxed));
    }

    fn session_events(&self, page: &mut Page) {
        if self.sessions.is_empty() {
            return;
        }
        let name = "session_events_total";
        page.family(name, "counter", "What happened to sessions.");
        for (keyword, counters) in &self.sessions {
            for (event, count) in counters.snapshot().iter() {
                page.sample(name, &[("keyword", keyword), ("event", event)], count);
            }
        }
    }

    fn redis_pools(&self, page: &mut Page) {
        if self.pools.is_empty() {
            return;
        }
        let name = "redis_round_trips_total";
        page.family(name, "counter", "Round trips that were answered.");
        for (pool, redis) in &self.pools {
            page.sample(name, &[("pool", pool)], redis.round_trips().seconds.count());
        }
        let name = "redis_operations_total";
        page.family(name, "counter", "Operations that were answered.");
        for (pool, redis) in &self.pools {
            page.sample(name, &[("pool", pool)], redis.round_trips().sizes.sum());
        }
        let name = "redis_batch_size";
        page.family(name, "histogram", "Operations in one round trip.");
        for (pool, redis) in &self.pools {
            page.histogram(name, &[("pool", pool)], &redis.round_trips().sizes);
        }
        let name = "redis_round_trip_seconds";
        page.family(name, "histogram", "From a batch to its replies.");
        for (pool, redis) in &self.pools {
            page.histogram(name, &[("pool", pool)], &redis.round_trips().seconds);
        }
        let name = "redis_connections";
        page.family(name, "gauge", "Connections of the pool.");
        for (pool, redis) in &self.pools {
            let (all, idle) = redis.connections();
            page.sample(name, &[("pool", pool), ("state", "idle")], idle);
            page.sample(name, &[("pool", pool), ("state", "used")], all.saturating_sub(idle));
        }
        let name = "redis_breaker_open";
        page.family(name, "gauge", "Whether operations fail at once.");
        for (pool, redis) in &self.pools {
            let open = u8::from(redis.breaker() != BreakerState::Closed);
            page.sample(name, &[("pool", pool)], open);
        }
    }

    fn memory_stores(&self, page: &mut Page) {
        if self.memory.is_empty() {
            return;
        }
        let name = "memory_sessions";
        page.family(name, "gauge", "Sessions held.");
        for (store, memory) in &self.memory {
            page.sample(name, &[("store", store)], memory.len());
        }
        let name = "memory_sessions_capacity";
        page.family(name, "gauge", "Sessions that there is room for.");
        for (store, memory) in &self.memory {
            page.sample(name, &[("store", store)], memory.max_sessions());
        }
    }

    #[cfg(feature = "sqlite")]
    fn file_stores(&self, page: &mut Page) {
        if self.files.is_empty() {
            return;
        }
        let name = "file_commit_seconds";
        page.family(name, "histogram", "Commits.");
        for (store, file) in &self.files {
            page.histogram(name, &[("store", store)], &file.commits().seconds);
        }
        let name = "file_batch_size";
        page.family(name, "histogram", "Saves in one commit.");
        for (store, file) in &self.files {
            page.histogram(name, &[("store", store)], &file.commits().sizes);
        }
        let name = "file_bytes";
        page.family(name, "gauge", "The file and its write-ahead log.");
        for (store, file) in &self.files {
            page.sample(name, &[("store", store)], file.bytes());
        }
    }
}

struct Page(String);

impl Page {
    /// Begins a metric. Nothing fails that writes to a text.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = writeln!(self.0, "{name}{} {value}", Labels(labels));
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut count = 0;
        for (bound, more) in histogram.buckets() {
            count += more;
            let bound = if bound.is_finite() { bound.to_string() } else { "+Inf".to_owned() };
            let labels: Vec<_> = labels.iter().copied().chain([("le", &*bound)]).collect();
            self.sample(&format!("{name}_bucket"), &labels, count);
        }
        self.sample(&format!("{name}_sum"), labels, histogram.sum());
        self.sample(&format!("{name}_count"), labels, count);
    }
}

struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, value)) in self.0.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(f, "{}{name}=\"{value}\"", if number == 0 { '{' } else { ',' })?;
        }
        if self.0.is_empty() { Ok(()) } else { f.write_char('}') }
    }
}
