import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.InputStreamReader;
import java.io.OutputStreamWriter;
import java.io.PrintWriter;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;
import org.apache.kafka.common.protocol.ApiKeys;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;

/**
 * Java's bytes for messages given as JSON. Each line of standard input is CLASS, VERSION and JSON, separated by tabs;
 * each line of standard output is the message in hexadecimal, or "error " and why there is none. An empty line is
 * an empty message. With the CLASS "ApiKeys", VERSION is the key of an API; the answer is its name, its oldest and its
 * latest stable and unstable version, and the versions of both headers in each version. Run by protocol/tests/java.rs.
 */
public final class JavaCodec {
    private static final Map<String, Method> READERS = new HashMap<>();

    public static void main(String[] args) throws Exception {
        ObjectMapper mapper = new ObjectMapper();
        BufferedReader in =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintWriter out = new PrintWriter(
            new BufferedWriter(new OutputStreamWriter(System.out, StandardCharsets.UTF_8)));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] columns = line.split("\t", 3);
            out.println(encode(mapper, columns[0], Short.parseShort(columns[1]), columns[2]));
        }
        out.flush();
    }

    private static String encode(ObjectMapper mapper, String name, short version, String json) {
        try {
            if (name.equals("ApiKeys")) {
                return describe(ApiKeys.forId(version));
            }
            Method reader = READERS.get(name);
            if (reader == null) {
                Class<?> converter = Class.forName(name + "JsonConverter");
                reader = converter.getMethod("read", JsonNode.class, short.class);
                READERS.put(name, reader);
            }
            Message message = (Message) reader.invoke(null, mapper.readTree(json), version);
            ByteBuffer bytes = MessageUtil.toByteBufferAccessor(message, version).buffer();
            return HexFormat.of().formatHex(MessageUtil.byteBufferToArray(bytes));
        } catch (InvocationTargetException e) {
            return "error " + String.valueOf(e.getCause()).replace('\n', ' ');
        } catch (Exception e) {
            return "error " + String.valueOf(e).replace('\n', ' ');
        }
    }

    private static String describe(ApiKeys api) {
        StringBuilder out = new StringBuilder(api.name)
            .append(' ').append(api.oldestVersion())
            .append(' ').append(api.latestVersion(false))
            .append(' ').append(api.latestVersion(true));
        for (short v = api.oldestVersion(); v <= api.latestVersion(true); v++) {
            out.append(' ').append(api.requestHeaderVersion(v));
            out.append('/').append(api.responseHeaderVersion(v));
        }
        return out.toString();
    }
}
