//! One file: as the process sees it, and as the platter may hold it after a crash.

/// What a drive writes as one piece.
pub(super) const SECTOR_BYTES: usize = 512;
/// What a kernel hands to a drive as one piece.
const PAGE_BYTES: usize = 4096;

/// A small generator (splitmix64): all that chance decides here comes from one seed.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// A change that is not known to be on the platter, or that must stay behind one that is not.
#[derive(Clone, Debug)]
enum Change {
    Write { position: usize, bytes: Vec<u8> },
    Length(usize),
    Grow(usize),
}

#[derive(Clone, Debug)]
struct Pending {
    change: Change,
    /// Flushed: survives, in its place in the order.
    certain: bool,
    /// A write that has begun and has not ended: no sync that returns meanwhile speaks of it.
    in_flight: bool,
    /// Nobody waits for it any more; it does not end.
    is_abandoned: bool,
    number: u64,
}

/// One file.
#[derive(Debug, Default)]
pub(super) struct Image {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
    next_number: u64,
}

impl Image {
    /// What the process reads.
    pub(super) fn current(&self) -> &[u8] {
        &self.current
    }

    /// What a crash leaves at least: nothing of what is not flushed.
    pub(super) fn flushed(&self) -> Vec<u8> {
        let mut flushed = self.durable.clone();
        for pending in self.pending.iter().filter(|pending| pending.certain) {
            apply(&mut flushed, &pending.change);
        }
        flushed
    }

    /// Bytes of writes that have begun and not ended.
    pub(super) fn bytes_under_way(&self) -> usize {
        let under_way = self.pending.iter().filter(|pending| pending.in_flight);
        let bytes = under_way.map(|pending| match &pending.change {
            Change::Write { bytes, .. } => bytes.len(),
            Change::Length(_) | Change::Grow(_) => 0,
        });
        bytes.sum()
    }

    /// Damage from outside: the same in both views.
    pub(super) fn damage(&mut self, damage: impl Fn(&mut Vec<u8>)) {
        damage(&mut self.current);
        damage(&mut self.durable);
        for pending in &mut self.pending {
            if let Change::Write { position, bytes } = &mut pending.change {
                let mut whole = vec![0; *position];
                whole.extend_from_slice(bytes);
                damage(&mut whole);
                whole.resize(*position + bytes.len(), 0);
                *bytes = whole.split_off(*position);
            }
        }
    }

    /// A write has begun: from here to [`Image::finish_write`] a crash may leave any of its
    /// sectors.
    pub(super) fn begin_write(&mut self, position: usize, bytes: Vec<u8>) -> u64 {
        let number = self.push(Change::Write { position, bytes }, false);
        if let Some(begun) = self.pending.last_mut() {
            begun.in_flight = true;
        }
        number
    }

    /// Whether a write that somebody waits for covers some of these bytes: in which order two such
    /// writes arrive is not known.
    pub(super) fn is_written_to(&self, position: usize, len: usize) -> bool {
        self.pending.iter().filter(|p| p.in_flight && !p.is_abandoned).any(|p| match &p.change {
            Change::Write { position: other, bytes } => {
                *other < position + len && position < other + bytes.len()
            }
            Change::Length(_) | Change::Grow(_) => false,
        })
    }

    /// Whoever waited for the write is gone.
    pub(super) fn abandon_write(&mut self, number: u64) {
        let mut writes = self.pending.iter_mut();
        if let Some(write) = writes.find(|pending| pending.number == number) {
            write.is_abandoned = true;
        }
    }

    /// The write is done: it can be read, and where `flushed` it survives.
    pub(super) fn finish_write(&mut self, number: u64, flushed: bool) {
        let Some(at) = self.pending.iter().position(|p| p.number == number) else {
            return;
        };
        let change = self.pending[at].change.clone();
        apply(&mut self.current, &change);
        self.pending[at].in_flight = false;
        if !flushed {
            return;
        }
        // Growth only adds zeros behind: a flushed write need not wait behind it.
        let ordered = self.pending[..at].iter().any(|p| !matches!(p.change, Change::Grow(_)));
        if ordered {
            self.pending[at].certain = true;
        } else {
            apply(&mut self.durable, &change);
            self.pending.remove(at);
        }
    }

    /// The write failed: some of its first `limit` bytes may be there, for the process and on the
    /// platter.
    pub(super) fn fail_write(&mut self, number: u64, limit: usize, chance: &mut Chance) {
        let Some(at) = self.pending.iter().position(|p| p.number == number) else {
            return;
        };
        let Change::Write { position, bytes } = self.pending.remove(at).change else {
            return;
        };
        // What came through is a prefix; where nobody promises more, any of its sectors.
        let whole = chance.coin();
        let pieces = bytes[..limit.min(bytes.len())].chunks(SECTOR_BYTES);
        for (sector, piece) in pieces.enumerate() {
            if whole || chance.coin() {
                let change = Change::Write {
                    position: position + sector * SECTOR_BYTES,
                    bytes: piece.to_vec(),
                };
                apply(&mut self.current, &change);
                self.push(change, false);
            }
        }
    }

    pub(super) fn set_len(&mut self, len: usize) {
        assert!(!self.is_written_to(0, usize::MAX), "a file is cut while it is written to");
        apply(&mut self.current, &Change::Length(len));
        self.push(Change::Length(len), false);
    }

    pub(super) fn grow(&mut self, len: usize) {
        if len > self.current.len() {
            apply(&mut self.current, &Change::Grow(len));
            self.push(Change::Grow(len), false);
        }
    }

    /// Everything that has ended is on the platter.
    pub(super) fn sync(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            if pending.in_flight {
                self.pending.push(pending);
            } else {
                apply(&mut self.durable, &pending.change);
            }
        }
    }

    /// A sync failed: the process still reads everything, and some of it will never be on the
    /// platter, whatever later syncs say.
    pub(super) fn fail_sync(&mut self, chance: &mut Chance) {
        self.pending.retain(|p| p.certain || p.in_flight || chance.coin());
    }

    /// What the platter holds after a crash: certain changes, and of the others what chance lets
    /// through. A write is torn in half of all cases.
    pub(super) fn crash(&mut self, chance: &mut Chance) {
        for pending in std::mem::take(&mut self.pending) {
            match (pending.certain, chance.below(4)) {
                (true, _) | (false, 0) => apply(&mut self.durable, &pending.change),
                (false, 1) => {}
                (false, _) => tear(&mut self.durable, &pending.change, chance),
            }
        }
        self.current = self.durable.clone();
    }

    fn push(&mut self, change: Change, certain: bool) -> u64 {
        self.next_number += 1;
        let number = self.next_number;
        let pending = Pending { change, certain, in_flight: false, is_abandoned: false, number };
        self.pending.push(pending);
        self.next_number
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { position, bytes } => {
            let end = position + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*position..end].copy_from_slice(bytes);
        }
        Change::Length(len) => content.resize(*len, 0),
        Change::Grow(len) => {
            if *len > content.len() {
                content.resize(*len, 0);
            }
        }
    }
}

fn tear(content: &mut Vec<u8>, change: &Change, chance: &mut Chance) {
    let Change::Write { position, bytes } = change else {
        if chance.coin() {
            apply(content, change);
        }
        return;
    };
    // Each piece by itself, or all but a run of them: a drive may write in any order. A piece is a
    // sector, or a page of the file: then whole blocks stand behind one that is missing.
    let piece_bytes = if chance.coin() { SECTOR_BYTES } else { PAGE_BYTES };
    let pieces = bytes.len().div_ceil(piece_bytes) as u64;
    let one_by_one = chance.coin();
    let (from, to) = (chance.below(pieces), chance.below(pieces + 1));
    for (number, piece) in (0..).zip(bytes.chunks(piece_bytes)) {
        let arrives = if one_by_one {
            chance.coin()
        } else {
            !(from.min(to)..=from.max(to)).contains(&number)
        };
        if arrives {
            let at = usize::try_from(number).unwrap_or(usize::MAX);
            let position = position + at * piece_bytes;
            let bytes = piece.to_vec();
            apply(content, &Change::Write { position, bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(image: &mut Image, position: usize, byte: u8, len: usize, flushed: bool) {
        let number = image.begin_write(position, vec![byte; len]);
        image.finish_write(number, flushed);
    }

    #[test]
    fn a_flushed_write_survives_and_an_unflushed_one_may_tear() {
        let (mut whole, mut none, mut torn) = (0, 0, 0);
        for seed in 0..100 {
            let mut image = Image::default();
            write(&mut image, 0, 1, 1024, true);
            write(&mut image, 1024, 2, 2048, false);
            image.crash(&mut Chance::new(seed));
            assert_eq!(&image.current()[..1024], &[1; 1024]);
            let arrived = image.current()[1024..].iter().filter(|b| **b == 2).count();
            assert_eq!(arrived % SECTOR_BYTES, 0);
            match arrived {
                2048 => whole += 1,
                0 => none += 1,
                _ => torn += 1,
            }
        }
        assert!(whole > 10 && none > 10 && torn > 10, "{whole} {none} {torn}");
    }

    #[test]
    fn what_a_cut_took_away_may_come_back_until_it_is_flushed() {
        let mut came_back = 0;
        for seed in 0..100 {
            let mut image = Image::default();
            write(&mut image, 0, 1, 4096, true);
            image.set_len(512);
            write(&mut image, 512, 2, 512, true);
            image.crash(&mut Chance::new(seed));
            assert_eq!(&image.current()[512..1024], &[2; 512], "flushed");
            came_back += usize::from(image.current().len() == 4096);
        }
        assert!(came_back > 10 && came_back < 90, "{came_back}");
        let mut image = Image::default();
        write(&mut image, 0, 1, 4096, true);
        image.set_len(512);
        image.sync();
        image.crash(&mut Chance::new(0));
        assert_eq!(image.current().len(), 512);
    }

    #[test]
    fn a_sync_says_nothing_of_a_write_that_is_under_way() {
        let mut survived = 0;
        for seed in 0..100 {
            let mut image = Image::default();
            let number = image.begin_write(0, vec![1; 512]);
            image.sync();
            image.fail_sync(&mut Chance::new(seed));
            assert!(image.current().is_empty());
            image.finish_write(number, false);
            assert_eq!(image.current(), &[1; 512]);
            image.crash(&mut Chance::new(seed));
            survived += usize::from(!image.current().is_empty());
        }
        assert!(survived > 10 && survived < 90, "{survived}");
    }

    #[test]
    fn two_writes_at_once_to_the_same_bytes_are_seen() {
        let mut image = Image::default();
        let number = image.begin_write(4096, vec![1; 4096]);
        assert!(!image.is_written_to(0, 4096) && !image.is_written_to(8192, 4096));
        assert!(image.is_written_to(4095, 2) && image.is_written_to(0, 16_384));
        image.abandon_write(number);
        assert!(!image.is_written_to(0, 16_384));
        let number = image.begin_write(4096, vec![1; 4096]);
        image.finish_write(number, true);
        assert!(!image.is_written_to(0, 16_384));
    }

    #[test]
    fn a_failed_sync_loses_for_ever() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut image = Image::default();
            write(&mut image, 0, 1, 512, false);
            image.fail_sync(&mut Chance::new(seed));
            image.sync();
            image.crash(&mut Chance::new(seed));
            lost += usize::from(image.current().is_empty());
        }
        assert!(lost > 10, "{lost}");
    }
}
