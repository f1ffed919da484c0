//! What the bench of latency under load rests on: schedules, quantiles, and that no wait is left out. By a clock that only
//! the test moves.

#[path = "../benches/load/arrivals.rs"]
mod arrivals;
#[path = "../benches/load/latencies.rs"]
mod latencies;
#[path = "../benches/load/serving.rs"]
mod serving;

use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use arrivals::Arrivals;
use latencies::Latencies;
use serving::{Clock, Served, Team, Wall, serve};

/// A clock that stands until somebody waits or works.
#[derive(Default)]
struct Still(Mutex<Duration>);

impl Clock for Still {
    fn now(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn wait_until(&self, time: Duration) {
        let mut now = self.0.lock().unwrap();
        *now = time.max(*now);
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// One caller that needs `cost` for a call, whatever its size.
fn served(schedule: &[Duration], batch: usize, cost: impl Fn(Range<usize>) -> Duration + Sync) -> Served {
    let clock = Still::default();
    let work = |batch: Range<usize>| *clock.0.lock().unwrap() += cost(batch);
    serve(schedule, Team { callers: 1, batch }, &clock, work)
}

#[test]
fn a_slow_answer_delays_the_requests_that_arrive_meanwhile() {
    // An arrival every 10 ms, each answered in 5 ms, but the second takes 40: the four behind it wait, and say so.
    let schedule: Vec<_> = (1..=8).map(|i| ms(10 * i)).collect();
    let served = served(&schedule, 1, |batch| if batch.start == 1 { ms(40) } else { ms(5) });
    assert_eq!(served.latencies, [5, 40, 35, 30, 25, 20, 15, 10].map(ms));
    assert_eq!(served.end, ms(90));
}

#[test]
fn more_than_can_be_served_waits_longer_and_longer() {
    let schedule = Arrivals::Even.schedule(200.0, 100, 1);
    let served = served(&schedule, 1, |_| ms(10));
    // 5 ms between two arrivals, 10 ms for each.
    let expected: Vec<_> = (0..100).map(|i| ms(10 + 5 * i)).collect();
    assert_eq!(served.latencies, expected);
}

#[test]
fn a_call_takes_what_has_arrived_up_to_a_batch() {
    let schedule = [0, 1, 2, 3, 4, 30].map(ms);
    let served = served(&schedule, 3, |_| ms(10));
    // The first alone; three of those that came meanwhile; the fifth, that no call had room for; the last.
    assert_eq!(served.batches, [1, 3, 1, 1]);
    assert_eq!(served.latencies, [10, 19, 18, 17, 26, 10].map(ms));
}

#[test]
fn all_callers_together_answer_each_request_once() {
    let answered = Mutex::new(vec![0; 1000]);
    let schedule = Arrivals::Poisson.schedule(1e6, 1000, 3);
    let team = Team { callers: 4, batch: 7 };
    let served = serve(&schedule, team, &Wall::start(), |batch| {
        answered.lock().unwrap()[batch].iter_mut().for_each(|count| *count += 1);
    });
    assert_eq!(*answered.lock().unwrap(), vec![1; 1000]);
    assert_eq!(served.latencies.len(), 1000);
    assert_eq!(served.batches.iter().sum::<usize>(), 1000);
    assert!(served.batches.iter().all(|&batch| (1..=7).contains(&batch)));
    // Nobody is answered before being there.
    assert!(served.end >= schedule[999]);
}

#[test]
fn percentiles_are_samples_by_nearest_rank() {
    let hundred = Latencies::new((1..=100).rev().map(ms).collect());
    assert_eq!([50, 90, 99].map(|percent| hundred.percentile(percent)), [50, 90, 99].map(ms));
    assert_eq!(hundred.max(), ms(100));
    assert_eq!(hundred.spread(), 99.0 / 50.0);
    // Of few samples the 99th percentile is the worst: it must not promise more than was seen.
    let three = Latencies::new([7, 1, 3].map(ms).to_vec());
    assert_eq!([0, 50, 90, 99].map(|percent| three.percentile(percent)), [1, 3, 7, 7].map(ms));
    assert_eq!(three.all(), [1, 3, 7].map(ms));
}

#[test]
fn a_schedule_keeps_its_rate_and_its_seed() {
    assert_eq!(Arrivals::Even.schedule(4.0, 3, 1), [250, 500, 750].map(ms));
    let poisson = Arrivals::Poisson.schedule(50.0, 100_000, 1);
    assert_eq!(poisson, Arrivals::Poisson.schedule(50.0, 100_000, 1));
    assert_ne!(poisson, Arrivals::Poisson.schedule(50.0, 100_000, 2));
    let mut gaps: Vec<f64> =
        poisson.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 50.0).collect();
    // In units of the mean gap: mean 1, standard deviation 1 (0.003 of error each), a median of ln 2.
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    gaps.sort_unstable_by(f64::total_cmp);
    let median = gaps[gaps.len() / 2];
    assert!((mean - 1.0).abs() < 0.02, "{mean}");
    assert!((variance - 1.0).abs() < 0.05, "{variance}");
    assert!((median - 2f64.ln()).abs() < 0.02, "{median}");
}
