package io.flowaggregator.peers;

import java.nio.file.Path;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.state.KeyValueStore;

/**
 * groupByKey.aggregate on RocksDB with a changelog, caching on: the way of Kafka Streams to keep totals.
 *
 * <p>Told by environment variables: PEER_KAFKA, PEER_TOPIC, PEER_NAME (application id), PEER_STATE (a directory),
 * PEER_PROGRESS (see Progress), PEER_GUARANTEE (at_least_once or exactly_once_v2), PEER_THREADS, PEER_CACHE_BYTES,
 * and where there is a sink PEER_SINK=redis with PEER_REDIS (host:port); PEER_COMMIT_MS where it is not the default.
 * Ends in order on SIGTERM: tasks are committed, the changelog is flushed.
 */
public final class Harness {
    private static final Duration CLOSE = Duration.ofSeconds(50);

    private Harness() {}

    public static void main(String[] arguments) throws Exception {
        Map<String, String> given = System.getenv();
        Progress progress = new Progress(Path.of(given.get("PEER_PROGRESS")));
        KafkaStreams streams = new KafkaStreams(topology(given, progress), properties(given));
        CountDownLatch failed = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(exception -> {
            exception.printStackTrace();
            failed.countDown();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            if (!streams.close(CLOSE)) {
                System.err.println("not closed within " + CLOSE);
            }
        }));
        streams.start();
        failed.await();
        System.exit(1);
    }

    private static Topology topology(Map<String, String> given, Progress progress) {
        StreamsBuilder builder = new StreamsBuilder();
        KTable<byte[], Counts> totals = builder
            .stream(given.get("PEER_TOPIC"), Consumed.with(Serdes.ByteArray(), Counts.JSON))
            .groupByKey()
            .aggregate(
                () -> Counts.NONE,
                (key, flow, sum) -> {
                    progress.add(1);
                    return sum.plus(flow);
                },
                Materialized.<byte[], Counts, KeyValueStore<Bytes, byte[]>>as("totals")
                    .withKeySerde(Serdes.ByteArray())
                    .withValueSerde(Counts.BINARY));
        if ("redis".equals(given.get("PEER_SINK"))) {
            totals.toStream().process(() -> new RedisSink(given.get("PEER_REDIS")));
        }
        return builder.build();
    }

    private static Properties properties(Map<String, String> given) {
        Properties properties = new Properties();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, given.get("PEER_NAME"));
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, given.get("PEER_KAFKA"));
        properties.put(StreamsConfig.STATE_DIR_CONFIG, given.get("PEER_STATE"));
        properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, given.get("PEER_GUARANTEE"));
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, given.get("PEER_THREADS"));
        // More than the default of 10 MB: the cache saves RocksDB and the changelog the updates in between.
        properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, given.get("PEER_CACHE_BYTES"));
        if (given.containsKey("PEER_COMMIT_MS")) {
            // Else the default of the guarantee: 30 s, or 100 ms with exactly once.
            properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, given.get("PEER_COMMIT_MS"));
        }
        // For the restart after kill -9 alone: with the default the group would wait 45 s for the dead member.
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG), "6000");
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG), "2000");
        // The rest is as it comes: acks=all, linger 100 ms, max.poll.records 1000, reading from the beginning.
        return properties;
    }
}
