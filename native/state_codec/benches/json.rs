//! The cost of JSON: the search for bytes to escape with every kernel of this machine, reading, and writing
//! strings.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use state_codec::scan::Kernel;
use state_codec::{Declined, Event, Output, Parser, Sink, text};

/// A typical state of a server: a list of small objects.
fn document() -> String {
    let item = |number: u32| {
        format!(
            r#"{{"id":{number},"name":"item {number}","price":{}.25,"tags":["a","b\n"],"open":true,"note":null}}"#,
            number % 97
        )
    };
    format!("[{}]", (0..1_000).map(item).collect::<Vec<_>>().join(","))
}

/// Counts events.
#[derive(Default)]
struct Count(usize);

impl Sink for Count {
    fn take(&mut self, event: Event<'_>) -> Result<(), Declined> {
        black_box(event);
        self.0 += 1;
        Ok(())
    }
}

fn events(text: &str) -> usize {
    let mut count = Count::default();
    Parser::new(text).read(&mut count).expect("JSON");
    count.0
}

fn benches(criterion: &mut Criterion) {
    let plain = "plain text without anything to escape ".repeat(100);
    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Bytes(plain.len() as u64));
    for kernel in Kernel::available() {
        group.bench_function(BenchmarkId::from_parameter(format!("{kernel:?}")), |bencher| {
            bencher.iter(|| kernel.find_special(black_box(plain.as_bytes())));
        });
    }
    group.finish();

    let document = document();
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Bytes(document.len() as u64));
    group.bench_function("1,000 small objects", |bencher| bencher.iter(|| events(black_box(&document))));
    group.finish();

    let escapes = "a \"quoted\" line\n".repeat(200);
    let mut group = criterion.benchmark_group("write");
    for (name, string) in [("plain string", &plain), ("string with escapes", &escapes)] {
        group.throughput(Throughput::Bytes(string.len() as u64));
        group.bench_function(name, |bencher| {
            let mut output = Output::new(Vec::with_capacity(64 << 10), usize::MAX);
            bencher.iter(|| {
                output.truncate(0);
                text::put_string(&mut output, black_box(string.as_bytes()))
            });
        });
    }
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
