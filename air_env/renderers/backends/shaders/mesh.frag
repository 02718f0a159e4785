#version 330 core
// A rough surface that is no metal, as pyrender's own shader has it, in one directional light.

in vec3 to_camera;
in vec3 frag_normal;
flat in vec3 base_color;
flat in vec3 to_light;
in float brightness;

struct DirectionalLight { vec3 color; float intensity; vec3 direction; };
uniform DirectionalLight directional_lights[1];
uniform vec3 ambient_light;

out vec4 frag_color;

void main()
{
    vec3 n = normalize(frag_normal), v = normalize(to_camera), l = to_light;
    float nl = clamp(dot(n, l), 0.001, 1.0);
    float nv = clamp(abs(dot(n, v)), 0.001, 1.0);
    float vh = clamp(dot(v, normalize(l + v)), 0.0, 1.0);
    float fresnel = 0.04 + 0.96 * pow(1.0 - vh, 5.0);
    float geometric = nl / (0.5 * nl + 0.5) * nv / (0.5 * nv + 0.5);
    vec3 diffuse = (1.0 - fresnel) * 0.96 * base_color / 3.141592653589793;
    float specular = fresnel * geometric / (3.141592653589793 * (4.0 * nl * nv + 0.001));
    vec3 color = nl * directional_lights[0].intensity * (diffuse + specular) + base_color * ambient_light;
    frag_color = vec4(clamp(pow(brightness * color, vec3(1.0 / 2.2)), 0.0, 1.0), 1.0);
}
