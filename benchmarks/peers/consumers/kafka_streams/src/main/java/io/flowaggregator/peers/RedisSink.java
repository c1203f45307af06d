package io.flowaggregator.peers;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;
import org.apache.kafka.streams.processor.Cancellable;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.Jedis;
import redis.clients.jedis.Pipeline;

/**
 * Writes totals to Redis, pipelined: HSET totals:HOUR KEY "bytes_tx bytes_rx", as a reader by hour wants them.
 *
 * <p>Kafka Streams has no public hook by which a sink is flushed before a commit. What is in the pipeline at a
 * kill -9 is thus not in Redis though it may be committed, until the flow key has another flow.
 */
final class RedisSink implements Processor<byte[], Counts, Void, Void> {
    private static final int MOST_PENDING = 1000;
    private static final Duration LONGEST_PENDING = Duration.ofMillis(50);
    private static final byte[] PREFIX = "totals:".getBytes(StandardCharsets.US_ASCII);

    private final HostAndPort address;
    private Jedis redis;
    private Pipeline pipeline;
    private Cancellable timer;
    private int pending;

    RedisSink(String address) {
        this.address = HostAndPort.from(address);
    }

    @Override
    public void init(ProcessorContext<Void, Void> context) {
        redis = new Jedis(address);
        pipeline = redis.pipelined();
        timer = context.schedule(LONGEST_PENDING, PunctuationType.WALL_CLOCK_TIME, now -> sync());
    }

    @Override
    public void process(Record<byte[], Counts> record) {
        Counts counts = record.value();
        byte[] value = (counts.bytesTx() + " " + counts.bytesRx()).getBytes(StandardCharsets.US_ASCII);
        pipeline.hset(hash(record.key()), record.key(), value);
        pending++;
        if (pending >= MOST_PENDING) {
            sync();
        }
    }

    @Override
    public void close() {
        timer.cancel();
        sync();
        redis.close();
    }

    private void sync() {
        if (pending > 0) {
            pipeline.sync();
            pending = 0;
        }
    }

    /** The key is ["foo","bar","vpc-0",HOUR], compact. */
    private static byte[] hash(byte[] key) {
        int comma = key.length - 1;
        while (key[comma] != ',') {
            comma--;
        }
        byte[] hour = Arrays.copyOfRange(key, comma + 1, key.length - 1);
        byte[] hash = Arrays.copyOf(PREFIX, PREFIX.length + hour.length);
        System.arraycopy(hour, 0, hash, PREFIX.length, hour.length);
        return hash;
    }
}
