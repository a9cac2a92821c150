//! What a node asks of its driver, in a list that takes no heap while it is short.

use super::message::Action;

/// What one input brings about on a busy leader of three: the high watermark, two to be sent to.
const INLINE: usize = 3;

/// Actions, in the order in which they are to be done.
#[derive(Debug, Default)]
pub struct Actions {
    first: [Option<Action>; INLINE],
    more: Vec<Action>,
}

impl Actions {
    /// One more, behind all others.
    pub fn push(&mut self, action: Action) {
        match self.first.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(action),
            None => self.more.push(action),
        }
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.first[0].is_none()
    }
}

impl IntoIterator for Actions {
    type Item = Action;
    type IntoIter = std::iter::Chain<
        std::iter::Flatten<std::array::IntoIter<Option<Action>, INLINE>>,
        std::vec::IntoIter<Action>,
    >;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().flatten().chain(self.more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_stays() {
        for count in 0..8 {
            let mut actions = Actions::default();
            assert!(actions.is_empty());
            for offset in 0..count {
                actions.push(Action::HighWatermark { offset });
            }
            let offsets: Vec<_> =
                (0..count).map(|offset| Action::HighWatermark { offset }).collect();
            assert_eq!(actions.into_iter().collect::<Vec<_>>(), offsets);
        }
    }
}
