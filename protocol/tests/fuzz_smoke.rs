//! The fuzz targets of `fuzz/`, without cargo-fuzz: valid messages, mutated, for a bounded time.
//!
//! `FUZZ_SEED` chooses other mutations, `FUZZ_ITERATIONS` how many for each target. A failure
//! prints the input that repeats it.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod common;
#[path = "../fuzz/src/lib.rs"]
#[expect(clippy::expect_used, reason = "a fuzz target panics where the code is wrong")]
mod targets;

use common::random::Random;
use common::value::Kind;
use common::{cases, schemas};
use targets::{CODECS, TARGETS, Target};
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::compression::{Codec, Compressor};

const ITERATIONS: u64 = 40_000;

/// Prints the input while a panic unwinds.
struct Input<'a>(&'a str, &'a [u8]);

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("target {} fails on {:02x?}", self.0, self.1);
        }
    }
}

fn variable(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Valid inputs for a target.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let wanted: Vec<&str> = CODECS
        .iter()
        .filter(|codec| match target {
            "request" => codec.is_api && codec.name.ends_with("Request"),
            "response" => codec.is_api && codec.name.ends_with("Response"),
            _ => !codec.is_api,
        })
        .map(|codec| codec.name)
        .collect();
    for schema in schemas() {
        let Some(at) = wanted.iter().position(|name| *name == schema.name()) else {
            continue;
        };
        for case in cases(&schema, 2) {
            if case.kind == Kind::Max && case.bytes.len() > 4_096 {
                continue;
            }
            let offset = case.version - schema.message().versions.first;
            let mut seed = vec![u8::try_from(at).unwrap_or(0), offset.to_be_bytes()[1]];
            seed.extend(&case.bytes);
            seeds.push(seed);
        }
    }
    seeds
}

fn frame_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for api in vltava_protocol::api::APIS {
        for version in [api.min_version, api.max_version] {
            let mut body = api.key.0.to_be_bytes().to_vec();
            body.extend(version.to_be_bytes());
            body.extend([0, 0, 0, 7, 0, 3, b'r', b'd', b'k', 1, 0, 2, 1, 1]);
            let mut seed = vec![0, 0, 0, body.len().to_be_bytes()[7]];
            seed.extend(body);
            seeds.push(seed);
        }
    }
    seeds
}

fn batch_seeds() -> Vec<Vec<u8>> {
    let codecs = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
    codecs
        .into_iter()
        .map(|codec| {
            let mut builder = BatchBuilder::new().producer(7, 1, 0);
            for at in 0..4 {
                let value = [at; 40];
                let headers = [(&b"h"[..], Some(&b"v"[..]))];
                builder
                    .append(1_000 + i64::from(at), Some(b"key"), Some(&value), &headers)
                    .unwrap();
            }
            let mut compressor = Compressor::new(codec, None).unwrap();
            builder.build_compressed(&mut compressor).unwrap()
        })
        .collect()
}

/// Changes a few things about an input: what a careless or hostile sender would.
fn mutate(input: &mut Vec<u8>, random: &mut Random) {
    const NASTY: &[&[u8]] = &[
        &[0xff, 0xff, 0xff, 0xff],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0, 0x0f, 0x42, 0x41],
        &[0x80, 0x80, 0x80, 0x80, 0],
        &[0],
        &[0x7f, 0xff],
    ];
    for _ in 0..=random.below(3) {
        if input.is_empty() {
            return;
        }
        let at = random.below(input.len());
        match random.below(6) {
            0 => input[at] ^= 1 << random.below(8),
            1 => input[at] = random.next().to_be_bytes()[0],
            2 => input.truncate(at),
            3 => _ = input.remove(at),
            4 => input.insert(at, random.next().to_be_bytes()[0]),
            _ => {
                let nasty = NASTY[random.below(NASTY.len())];
                let end = input.len().min(at + nasty.len());
                input.splice(at..end, nasty.iter().copied());
            }
        }
    }
}

fn fuzz(name: &str, target: Target, seeds: &[Vec<u8>], iterations: u64) {
    let mut random = Random::new(variable("FUZZ_SEED", 1));
    for seed in seeds {
        let _input = Input(name, seed);
        target(seed);
    }
    for _ in 0..iterations {
        let mut input = seeds[random.below(seeds.len())].clone();
        mutate(&mut input, &mut random);
        let _input = Input(name, &input);
        target(&input);
    }
}

#[test]
fn no_target_fails() {
    let iterations = variable("FUZZ_ITERATIONS", ITERATIONS);
    for (name, target) in TARGETS {
        let seeds = match *name {
            "frame" => frame_seeds(),
            "batch" => batch_seeds(),
            name => seeds(name),
        };
        fuzz(name, *target, &seeds, iterations);
    }
}

/// A fuzzer that finds nothing must be one that can find something.
#[test]
#[should_panic(expected = "the canary sings")]
fn canary() {
    fuzz("canary", targets::canary, &[vec![0xca; 2], vec![0xfe; 2]], ITERATIONS);
}

#[test]
fn every_target_is_a_fuzz_target() {
    let manifest = include_str!("../fuzz/Cargo.toml");
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
    // And the canary, which fails.
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len() + 1);
}
