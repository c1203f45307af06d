package io.flowaggregator.peers;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;

/** Bytes sent and received: of one flow, or of all flows of a flow key. */
record Counts(long bytesTx, long bytesRx) {
    static final Counts NONE = new Counts(0, 0);

    /** As a flow's value is in the log, {"bytes_tx":100,"bytes_rx":300}; read by Jackson's streaming parser. */
    static final Serde<Counts> JSON = Serdes.serdeFrom(
        (topic, counts) -> {
            throw new UnsupportedOperationException("flows are read, never written");
        },
        parser());

    /** As totals are in RocksDB and in the changelog: two big-endian longs. */
    static final Serde<Counts> BINARY = Serdes.serdeFrom(
        (topic, counts) ->
            counts == null
                ? null
                : ByteBuffer.allocate(2 * Long.BYTES).putLong(counts.bytesTx).putLong(counts.bytesRx).array(),
        (topic, bytes) -> {
            if (bytes == null) {
                return null;
            }
            ByteBuffer buffer = ByteBuffer.wrap(bytes);
            return new Counts(buffer.getLong(), buffer.getLong());
        });

    Counts plus(Counts other) {
        return new Counts(Math.addExact(bytesTx, other.bytesTx), Math.addExact(bytesRx, other.bytesRx));
    }

    private static Deserializer<Counts> parser() {
        JsonFactory factory = new JsonFactory();
        return (topic, bytes) -> {
            long bytesTx = -1;
            long bytesRx = -1;
            try (JsonParser json = factory.createParser(bytes)) {
                json.nextToken();
                while (json.nextToken() == JsonToken.FIELD_NAME) {
                    String name = json.currentName();
                    json.nextToken();
                    switch (name) {
                        case "bytes_tx" -> bytesTx = json.getLongValue();
                        case "bytes_rx" -> bytesRx = json.getLongValue();
                        default -> json.skipChildren();
                    }
                }
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            if (bytesTx < 0 || bytesRx < 0) {
                throw new IllegalArgumentException("not a flow's value");
            }
            return new Counts(bytesTx, bytesRx);
        };
    }
}
