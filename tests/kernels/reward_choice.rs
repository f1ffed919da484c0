//! Which list wins: ties, lists that do not exist, rewards that are not finite.

use bidslate::auction::choice::winner as cpu_winner;
use bidslate::cuda::launch::{Buffer, Stream};
use bidslate::cuda::lists::{Lists, NO_LIST};
use bidslate::cuda::reward_choice::{self, Choice, NO_WINNER, Values};
use std::sync::Arc;

use crate::setup::Inputs;
use crate::streams::streams;

/// Rewards and winners where list l has one slot with probability `probabilities[l]`, which is its reward.
fn choose(
    stream: &Arc<dyn Stream>,
    probabilities: &[f32],
    lengths: &[i32],
    scores: &[f64],
    offsets: &[u32],
) -> (Vec<f64>, Vec<u32>) {
    let (count, requests) = (lengths.len(), offsets.len() - 1);
    let three: Vec<f32> = [probabilities, &vec![0.0; 2 * count]].concat();
    let lengths = Buffer::from_slice(stream, lengths).unwrap();
    let values = Values {
        probabilities: &Buffer::from_slice(stream, &three).unwrap(),
        bids: &Buffer::from_slice(stream, &vec![0; count]).unwrap(),
        bid_unit: 1,
        scores: &Buffer::from_slice(stream, scores).unwrap(),
        objectives: &Buffer::from_slice(stream, &[0.0, 1.0, 0.0, 0.0].repeat(requests)).unwrap(),
        offsets: &Buffer::from_slice(stream, offsets).unwrap(),
    };
    let mut rewards = Buffer::new(stream, count).unwrap();
    let mut winner = Buffer::new(stream, requests).unwrap();
    let mut choice = Choice { rewards: &mut rewards, winner: &mut winner };
    reward_choice::run(&**stream, Lists::new(count, 1, &lengths), values, requests, &mut choice).unwrap();
    (rewards.to_vec().unwrap(), winner.to_vec().unwrap())
}

#[test]
fn ties_go_to_the_score_then_to_the_lower_index() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        for count in [1, 2, 31, 33, 256, 257, 1000] {
            // Three rewards and three scores: most lists tie with many others.
            let few = |inputs: &mut Inputs| inputs.indices(count, 3);
            let probabilities: Vec<f32> = few(&mut inputs).iter().map(|&i| i as f32 / 4.0).collect();
            let scores: Vec<f64> = few(&mut inputs).iter().map(|&i| -f64::from(i)).collect();
            let contenders = probabilities.iter().map(|&p| f64::from(p)).zip(scores.iter().copied());
            let want = cpu_winner(contenders).unwrap() as u32;
            let lengths = vec![1; count];
            let (_, winners) = choose(&stream, &probabilities, &lengths, &scores, &[0, count as u32]);
            assert_eq!(winners, [want], "{count} lists");
        }
    }
}

#[test]
fn an_empty_list_may_win_and_a_missing_one_never() {
    for stream in streams() {
        let lengths = [NO_LIST, 0, NO_LIST, NO_LIST, NO_LIST, 1];
        let scores = [9.0, -5.0, 9.0, 9.0, 9.0, -1.0];
        let (rewards, winners) = choose(&stream, &[0.5; 6], &lengths, &scores, &[0, 3, 4, 4, 6]);
        assert_eq!(winners, [1, NO_WINNER, NO_WINNER, 5]);
        assert_eq!(rewards, [0.0, 0.0, 0.0, 0.0, 0.0, 0.5]);
    }
}

#[test]
fn a_reward_that_is_not_finite_touches_its_request_alone() {
    for stream in streams() {
        let probabilities = [0.5, f32::NAN, 0.25, f32::INFINITY, 0.75];
        let (rewards, winners) = choose(&stream, &probabilities, &[1; 5], &[0.0; 5], &[0, 2, 3, 5]);
        let finite: Vec<bool> = rewards.iter().map(|reward| reward.is_finite()).collect();
        assert_eq!(finite, [true, false, true, false, true]);
        assert_eq!(winners[1], 2);
    }
}
