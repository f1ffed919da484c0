//! A response is a function of weights, catalog snapshot and request: not of the batch, its place in it, the
//! threads, or what ran before. Bit for bit.

mod world;

use bidslate::engine::{Engine, Report};
use bidslate::request::Request;
use bidslate::response::Response;
use world::World;

const ALL: Report = Report { timings: false, quotes: true, trace: true, grounds: true, rate_inputs: true };

fn run(engine: &Engine, requests: &[Request]) -> Vec<Response> {
    engine.allocate_with(requests, ALL).into_iter().map(Result::unwrap).collect()
}

#[test]
fn alone_or_in_a_batch_on_one_thread_or_two() {
    let mut rng = world::rng("alone_or_in_a_batch_on_one_thread_or_two");
    let world = World::new(world::config(), 300, 11);
    let requests = world.requests(7, &mut rng);
    let one = world.engine(1);
    let alone: Vec<Response> =
        requests.iter().map(|r| run(&one, std::slice::from_ref(r)).remove(0)).collect();
    for threads in [1, 2, 3] {
        let engine = world.engine(threads);
        for turn in 0..requests.len() {
            let mut turned = requests.clone();
            turned.rotate_left(turn);
            let mut expected = alone.clone();
            expected.rotate_left(turn);
            assert_eq!(run(&engine, &turned), expected, "{threads} threads, rotated by {turn}");
        }
    }
}

#[test]
fn what_ran_before_leaves_no_trace() {
    let mut rng = world::rng("what_ran_before_leaves_no_trace");
    let world = World::new(world::config(), 300, 12);
    let requests = world.requests(12, &mut rng);
    let fresh: Vec<Response> =
        requests.iter().map(|r| run(&world.engine(1), std::slice::from_ref(r)).remove(0)).collect();
    let used = world.engine(2);
    for _ in 0..3 {
        assert_eq!(run(&used, &requests), fresh);
    }
}

#[test]
fn many_threads_share_one_engine() {
    let mut rng = world::rng("many_threads_share_one_engine");
    let world = World::new(world::config(), 300, 13);
    let requests = world.requests(9, &mut rng);
    let engine = world.engine(2);
    let expected = run(&engine, &requests);
    std::thread::scope(|scope| {
        for caller in 0..4usize {
            let (engine, requests, expected) = (&engine, &requests, &expected);
            scope.spawn(move || {
                for round in 0..4 {
                    let from = (caller + round) % requests.len();
                    assert_eq!(run(engine, &requests[from..]), expected[from..]);
                }
            });
        }
    });
}
