//! An ordered map whose clones share what they have in common.
//!
//! Entries stand in chunks; a change copies one chunk and the list of chunks, and only where a
//! clone still holds them. With 10,000 entries that is some two hundred small copies, not ten
//! thousand.

use std::borrow::Borrow;
use std::sync::Arc;

/// Entries of a chunk at most; half of it after a split.
const CHUNK_ENTRIES_MAX: usize = 128;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// An ordered map; `clone` is one reference count.
#[derive(Debug)]
pub struct SortedMap<K, V> {
    /// None is empty; keys rise within a chunk and from one to the next.
    chunks: Arc<Vec<Chunk<K, V>>>,
    len: usize,
}

impl<K, V> Clone for SortedMap<K, V> {
    fn clone(&self) -> Self {
        Self { chunks: Arc::clone(&self.chunks), len: self.len }
    }
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self { chunks: Arc::new(Vec::new()), len: 0 }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for SortedMap<K, V> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks)
            || self.len == other.len && self.entries().eq(other.entries())
    }
}

impl<K, V> SortedMap<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> + Clone {
        self.entries().map(|(key, value)| (key, value))
    }

    fn entries(&self) -> impl Iterator<Item = &(K, V)> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }
}

impl<K: Ord, V> SortedMap<K, V> {
    /// The chunk that holds the key, or would.
    fn chunk_of<Q: Ord + ?Sized>(&self, key: &Q) -> usize
    where
        K: Borrow<Q>,
    {
        let after = self
            .chunks
            .partition_point(|chunk| first_key(chunk).is_some_and(|first| first.borrow() <= key));
        after.saturating_sub(1)
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let at = chunk.binary_search_by(|(known, _)| known.borrow().cmp(key)).ok()?;
        chunk.get(at).map(|(_, value)| value)
    }

    /// Entries whose keys are not below this one, in order.
    pub fn iter_from<'a, Q: Ord + ?Sized>(
        &'a self,
        from: &Q,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + Clone + use<'a, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let first = self.chunk_of(from);
        let within = self
            .chunks
            .get(first)
            .map_or(0, |chunk| chunk.partition_point(|(key, _)| key.borrow() < from));
        let chunks = self.chunks.get(first..).unwrap_or_default();
        chunks.iter().flat_map(|chunk| chunk.iter()).skip(within).map(|(key, value)| (key, value))
    }
}

fn first_key<K, V>(chunk: &Chunk<K, V>) -> Option<&K> {
    chunk.first().map(|(key, _)| key)
}

impl<K: Ord + Clone, V: Clone> SortedMap<K, V> {
    /// Sets a key's value; gives back the one it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.chunk_of(&key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(shared) = chunks.get_mut(at) else {
            chunks.push(Arc::new(vec![(key, value)]));
            self.len += 1;
            return None;
        };
        let chunk = Arc::make_mut(shared);
        match chunk.binary_search_by(|(known, _)| known.cmp(&key)) {
            Ok(found) => Some(std::mem::replace(&mut chunk[found].1, value)),
            Err(gap) => {
                chunk.insert(gap, (key, value));
                if chunk.len() > CHUNK_ENTRIES_MAX {
                    let upper = chunk.split_off(CHUNK_ENTRIES_MAX / 2);
                    chunks.insert(at + 1, Arc::new(upper));
                }
                self.len += 1;
                None
            }
        }
    }

    /// The value of a key, to be changed in place; it is copied first where a clone of the map
    /// still shares it.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let at = self.chunk_of(key);
        let found =
            self.chunks.get(at)?.binary_search_by(|(known, _)| known.borrow().cmp(key)).ok()?;
        let chunk = Arc::make_mut(Arc::make_mut(&mut self.chunks).get_mut(at)?);
        chunk.get_mut(found).map(|(_, value)| value)
    }

    /// Removes a key; gives back its value.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let at = self.chunk_of(key);
        let found =
            self.chunks.get(at)?.binary_search_by(|(known, _)| known.borrow().cmp(key)).ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(chunks.get_mut(at)?);
        let (_, value) = chunk.remove(found);
        let remaining = chunk.len();
        self.len -= 1;
        let next = chunks.get(at + 1).map_or(0, |next| next.len());
        if remaining == 0 {
            chunks.remove(at);
        } else if next > 0 && remaining + next <= CHUNK_ENTRIES_MAX / 2 {
            // Many removals would otherwise leave many chunks of one entry.
            let next = chunks.remove(at + 1);
            Arc::make_mut(&mut chunks[at]).extend(next.iter().cloned());
        }
        Some(value)
    }
}

impl<K: Ord, V: PartialEq> SortedMap<K, V> {
    /// What differs: each key with its value in `before` and in `self`, in order. Chunks that both
    /// share are not looked at.
    pub fn changes_since<'a>(&'a self, before: &'a Self) -> Vec<Change<'a, K, V>> {
        let mut changes = Vec::new();
        let (mut old, mut new) = (Cursor::of(before), Cursor::of(self));
        loop {
            if let (Some(left), Some(right)) = (old.whole_chunk(), new.whole_chunk())
                && Arc::ptr_eq(left, right)
            {
                old.skip_chunk();
                new.skip_chunk();
                continue;
            }
            let change = match (old.peek(), new.peek()) {
                (None, None) => return changes,
                (Some((key, value)), Some((other, _))) if key < other => {
                    old.advance();
                    Change { key, before: Some(value), after: None }
                }
                (Some((key, value)), None) => {
                    old.advance();
                    Change { key, before: Some(value), after: None }
                }
                (Some((known, before)), Some((key, after))) if known == key => {
                    old.advance();
                    new.advance();
                    if before == after {
                        continue;
                    }
                    Change { key, before: Some(before), after: Some(after) }
                }
                (_, Some((key, value))) => {
                    new.advance();
                    Change { key, before: None, after: Some(value) }
                }
            };
            changes.push(change);
        }
    }
}

/// One key that two maps disagree about.
#[derive(Debug, PartialEq, Eq)]
pub struct Change<'a, K, V> {
    /// The key.
    pub key: &'a K,
    /// Its value before; `None`: it was not there.
    pub before: Option<&'a V>,
    /// Its value now; `None`: it is gone.
    pub after: Option<&'a V>,
}

/// A place in a map.
struct Cursor<'a, K, V> {
    chunks: &'a [Chunk<K, V>],
    at: usize,
}

impl<'a, K, V> Cursor<'a, K, V> {
    fn of(map: &'a SortedMap<K, V>) -> Self {
        Self { chunks: &map.chunks, at: 0 }
    }

    /// The chunk that begins here.
    fn whole_chunk(&self) -> Option<&'a Chunk<K, V>> {
        self.chunks.first().filter(|_| self.at == 0)
    }

    fn skip_chunk(&mut self) {
        self.chunks = self.chunks.get(1..).unwrap_or_default();
        self.at = 0;
    }

    fn peek(&self) -> Option<&'a (K, V)> {
        self.chunks.first()?.get(self.at)
    }

    fn advance(&mut self) {
        self.at += 1;
        if self.chunks.first().is_some_and(|chunk| self.at == chunk.len()) {
            self.skip_chunk();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u16, u8),
        Remove(u16),
        Update(u16, u8),
        Keep,
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = 0..600_u16;
        prop_oneof![
            6 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Step::Insert(key, value)),
            3 => key.clone().prop_map(Step::Remove),
            1 => (key, any::<u8>()).prop_map(|(key, value)| Step::Update(key, value)),
            1 => Just(Step::Keep),
        ]
    }

    fn check(map: &SortedMap<u16, u8>, model: &BTreeMap<u16, u8>) {
        assert_eq!(map.len(), model.len());
        assert!(map.iter().eq(model.iter()));
        assert!(
            map.chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= CHUNK_ENTRIES_MAX)
        );
        for key in (0..600).step_by(37) {
            assert_eq!(map.get(&key), model.get(&key));
            assert!(map.iter_from(&key).eq(model.range(key..)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Against a plain map; older clones keep what they had.
        #[test]
        fn behaves_as_a_plain_map(steps in prop::collection::vec(step(), 0..1500)) {
            let (mut map, mut model) = (SortedMap::default(), BTreeMap::new());
            let mut kept: Vec<(SortedMap<u16, u8>, BTreeMap<u16, u8>)> = Vec::new();
            for step in steps {
                match step {
                    Step::Insert(key, value) => {
                        assert_eq!(map.insert(key, value), model.insert(key, value));
                    }
                    Step::Remove(key) => assert_eq!(map.remove(&key), model.remove(&key)),
                    Step::Update(key, value) => {
                        let (found, expected) = (map.get_mut(&key), model.get_mut(&key));
                        assert_eq!(found, expected);
                        if let (Some(found), Some(expected)) = (found, expected) {
                            *found = value;
                            *expected = value;
                        }
                    }
                    Step::Keep => kept.push((map.clone(), model.clone())),
                }
            }
            check(&map, &model);
            for (old, old_model) in &kept {
                check(old, old_model);
                let expected: BTreeMap<u16, (Option<u8>, Option<u8>)> = old_model
                    .keys()
                    .chain(model.keys())
                    .map(|key| (*key, (old_model.get(key).copied(), model.get(key).copied())))
                    .filter(|(_, (before, after))| before != after)
                    .collect();
                let changes = map.changes_since(old);
                let found: BTreeMap<u16, (Option<u8>, Option<u8>)> = changes
                    .iter()
                    .map(|change| (*change.key, (change.before.copied(), change.after.copied())))
                    .collect();
                assert_eq!(changes.len(), found.len());
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn a_change_leaves_shared_chunks_alone() {
        let mut map = SortedMap::default();
        for key in 0..10_000_u32 {
            map.insert(key, key);
        }
        let before = map.clone();
        map.insert(5_000, 0);
        let shared =
            before.chunks.iter().zip(map.chunks.iter()).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert_eq!(shared, before.chunks.len() - 1);
        assert_eq!(map.changes_since(&before).len(), 1);
        assert!(map != before && before == before.clone());
    }
}
