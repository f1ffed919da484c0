//! What a list is worth (Eq. 24), and which list wins.

use crate::request::Objective;

/// What the reward model and the bids say of one filled slot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlotValue {
    /// Bid in bid units; 0 for organic items.
    pub bid: f64,
    /// Probability of a click on the POI.
    pub pctr_poi: f64,
    /// Probability of a click on the creative.
    pub pctr_creative: f64,
    /// Probability of a conversion.
    pub pcvr: f64,
}

/// The reward of a list: the sum over its slots; 0 for an empty list.
pub fn list_reward(objective: &Objective, slots: &[SlotValue]) -> f64 {
    let reward = |s: &SlotValue| {
        objective.revenue * s.bid * s.pctr_poi
            + objective.ctr_poi * s.pctr_poi
            + objective.ctr_creative * s.pctr_creative
            + objective.cvr * s.pcvr
    };
    // From 0, because the sum of nothing is -0.
    slots.iter().map(reward).fold(0.0, |sum, reward| sum + reward)
}

/// The list with the highest reward among (reward, score); ties go to the higher score, then to the lower
/// index. None where there is no list.
pub fn winner(lists: impl Iterator<Item = (f64, f64)>) -> Option<usize> {
    let better = |a: (f64, f64), b: (f64, f64)| a.0 > b.0 || (a.0 == b.0 && a.1 > b.1);
    let mut best: Option<(usize, (f64, f64))> = None;
    for (i, list) in lists.enumerate() {
        if best.is_none_or(|(_, held)| better(list, held)) {
            best = Some((i, list));
        }
    }
    best.map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_score_then_to_the_lower_beam() {
        assert_eq!(winner([(1.0, -3.0), (2.0, -9.0), (2.0, -8.0), (2.0, -8.0)].into_iter()), Some(2));
        assert_eq!(winner(std::iter::empty()), None);
    }

    #[test]
    fn reward_sums_the_weighted_parts() {
        let slot = |bid| SlotValue { bid, pctr_poi: 0.5, pctr_creative: 0.25, pcvr: 0.125 };
        let objective = Objective { revenue: 1.0, ctr_poi: 2.0, ctr_creative: 4.0, cvr: 8.0 };
        assert_eq!(list_reward(&objective, &[slot(3.0), slot(0.0)]), 1.5 + 2.0 * (1.0 + 1.0 + 1.0));
        assert_eq!(list_reward(&objective, &[]), 0.0);
    }
}
